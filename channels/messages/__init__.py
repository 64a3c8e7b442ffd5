"""Messages: the tables, their states, which state may follow which, and the only writers of both.

table.py: the tables, which everybody may read. states.py: the states, and `ALLOWED`, which says for
each transition what it changes into what. transitions.py and device_transitions.py: one function a
transition; nothing else in the product writes these tables.
"""

from channels.messages.states import COUNTING_STATES, DeviceState, MessageState
from channels.messages.table import message_devices, messages

__all__ = ["COUNTING_STATES", "DeviceState", "MessageState", "message_devices", "messages"]
