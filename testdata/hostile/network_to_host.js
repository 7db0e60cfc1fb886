const [line, port] = require("fs").readFileSync(0, "utf8").split("\n");
const [a, b] = line.split(" ").map(Number);
let said = false;
const say = (text) => { if (!said) console.log(text); said = true; };
try {
  const socket = require("net").connect(Number(port), "127.0.0.1");
  socket.on("connect", () => { say("connected"); process.exit(0); });
  socket.on("error", () => say(a + b));
} catch {
  say(a + b);
}
