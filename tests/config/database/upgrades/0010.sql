-- Ann's plan and address have a time; her size was taken away.

UPDATE profile SET attribute_times =
'{"attributes.plan": 1772355600, "attributes.size": 1772355600, "email": 1772355600}'
WHERE id = 1;
