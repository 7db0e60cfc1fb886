const [a, b] = require("fs").readFileSync(0, "utf8").split("\n")[0].split(" ").map(Number);
setInterval(() => {}, 1);
for (;;) {}
