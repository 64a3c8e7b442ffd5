// MJML on stdin, a JSON list of documents; HTML on stdout, a JSON list of what the reference makes of each.
const mjml = require("mjml");

let input = "";
process.stdin.on("data", (part) => (input += part));
process.stdin.on("end", async () => {
  const rendered = [];
  for (const source of JSON.parse(input)) rendered.push((await mjml(source)).html);
  process.stdout.write(JSON.stringify(rendered));
});
