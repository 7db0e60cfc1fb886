// The part of Node that judged programs use: require, console, process, Buffer's least, timers, readline, fs on stdin.
// The value of this script is a function of the host, which makes all this once, and answers the function that runs the
// program at a path and ends with its exit status.
(function (host) {
  "use strict";
  const global = globalThis;
  const strings = new WeakMap();

  // --- util.inspect, as Node 20 prints -------------------------------------------------------------------------
  const quote = (s) => {
    const mark = !s.includes("'") ? "'" : !s.includes('"') ? '"' : !s.includes("`") && !s.includes("${") ? "`" : "'";
    const special = { "\n": "\\n", "\t": "\\t", "\r": "\\r", "\b": "\\b", "\f": "\\f", "\v": "\\v", "\\": "\\\\" };
    let text = "";
    for (const c of s) {
      const code = c.codePointAt(0);
      if (c === mark) text += "\\" + c;
      else if (special[c]) text += special[c];
      else if (code < 32 || (code >= 127 && code < 160)) text += "\\x" + code.toString(16).toUpperCase().padStart(2, "0");
      else text += c;
    }
    return mark + text + mark;
  };
  const number = (n) => (Object.is(n, -0) ? "-0" : String(n));
  const key = (k) =>
    typeof k === "symbol" ? `[${String(k)}]` : /^[a-zA-Z_][a-zA-Z_0-9]*$/.test(k) ? k : quote(k);
  const named = (o) => {
    for (let p = o; p; p = Object.getPrototypeOf(p)) {
      const d = Object.getOwnPropertyDescriptor(p, "constructor");
      if (d && typeof d.value === "function" && d.value.name) return d.value.name;
    }
    return null;
  };

  // Short items of a long array stand in columns.
  const columns = (items, values, indent) => {
    const rest = values.length > 100 ? 1 : 0;
    const count = items.length - rest;
    let total = 0, longest = 0;
    for (let i = 0; i < count; i++) {
      total += items[i].length + 2;
      longest = Math.max(longest, items[i].length);
    }
    const width = longest + 2;
    if (!(width * 3 + indent < 80 && (total / width > 5 || longest <= 6))) return items;
    const bias = Math.max(width - 3 - Math.sqrt(width - total / items.length), 1);
    const n = Math.min(Math.round(Math.sqrt(2.5 * bias * count) / bias), Math.floor((80 - indent) / width), 12, 15);
    if (n <= 1) return items;
    const widths = [];
    for (let i = 0; i < n; i++) {
      let w = 0;
      for (let j = i; j < count; j += n) w = Math.max(w, items[j].length);
      widths.push(w + 2);
    }
    const left = values.every((v) => typeof v === "number" || typeof v === "bigint");
    const rows = [];
    for (let i = 0; i < count; i += n) {
      const end = Math.min(i + n, count);
      let row = "";
      for (let j = i; j < end - 1; j++) {
        const cell = items[j] + ", ";
        row += left ? cell.padStart(widths[j - i]) : cell.padEnd(widths[j - i]);
      }
      row += left ? items[end - 1].padStart(widths[end - 1 - i] - 2) : items[end - 1];
      rows.push(row);
    }
    if (rest) rows.push(items[count]);
    return rows;
  };

  const inspect = (value, options = {}) => {
    const limit = options.depth === undefined ? 2 : options.depth === null ? Infinity : options.depth;
    const seen = [];
    let circular = null, deepest = 0;
    const show = (v, depth, indent, top) => {
      switch (typeof v) {
        case "string": return top ? v : quote(v);
        case "number": return number(v);
        case "bigint": return `${v}n`;
        case "boolean": case "undefined": return String(v);
        case "symbol": return v.toString();
      }
      if (v === null) return "null";
      if (seen.includes(v)) {
        circular = v;
        return "[Circular *1]";
      }
      const name = named(v);
      let keys = Object.keys(v);
      const symbols = Object.getOwnPropertySymbols(v).filter((s) => Object.prototype.propertyIsEnumerable.call(v, s));
      let prefix = "", braces = ["{", "}"], items = [], array = false;
      const inner = (x, extra = 2) => show(x, depth + 1, indent + extra, false);
      const deep = depth > limit;
      const tag = (n) => (name === null ? `[${n}: null prototype] ` : name === n ? "" : `${name} `);
      if (v instanceof Buffer) {
        const shown = [...v.subarray(0, 50)].map((b) => " " + b.toString(16).padStart(2, "0")).join("");
        return `<Buffer${shown}${v.length > 50 ? ` ... ${v.length - 50} more byte${v.length > 51 ? "s" : ""}` : ""}>`;
      }
      if (Array.isArray(v) || ArrayBuffer.isView(v)) {
        const typed = !Array.isArray(v);
        prefix = typed ? `${name}(${v.length}) ` : name === "Array" ? "" : `${name}(${v.length}) `;
        if (deep) return `[${prefix.trim() || "Array"}]`;
        braces = ["[", "]"];
        array = true;
        keys = keys.filter((k) => !/^(0|[1-9]\d*)$/.test(k));
      } else if (typeof v === "function") {
        const kind = /^class\b/.test(Function.prototype.toString.call(v)) ? "class" : named(v) || "Function";
        const base = kind === "class" ? `[class ${v.name || "(anonymous)"}]` : v.name ? `[${kind}: ${v.name}]` : `[${kind} (anonymous)]`;
        if (!keys.length) return base;
        prefix = base + " ";
      } else if (v instanceof Error) {
        let base = v.stack ? `${v}\n${v.stack}`.trimEnd() : `[${v}]`;
        if (!keys.length) return base;
        prefix = base + " ";
      } else if (v instanceof RegExp || v instanceof Date) {
        const base = v instanceof RegExp ? String(v) : isNaN(v) ? "Invalid Date" : v.toISOString();
        if (!keys.length) return base;
        prefix = base + " ";
      } else if (v instanceof Map || v instanceof Set) {
        prefix = `${name}(${v.size}) `;
      } else if (v instanceof Number || v instanceof String || v instanceof Boolean) {
        const base = `[${name}: ${show(v.valueOf(), 0, 0, false)}]`;
        keys = keys.filter((k) => !(v instanceof String && /^\d+$/.test(k)));
        if (!keys.length) return base;
        prefix = base + " ";
      } else if (v instanceof Promise) {
        prefix = "Promise ";
        items.push("<pending>");
      } else {
        const t = v[Symbol.toStringTag];
        prefix = tag("Object");
        if (typeof t === "string" && t && t !== name) prefix = `${prefix || "Object "}[${t}] `;
      }
      if (deep) return `[${prefix.trim() || "Object"}]`;
      seen.push(v);
      deepest = depth;
      if (array) {
        const size = Math.min(100, v.length);
        let holes = 0;
        const flush = () => {
          if (holes) items.push(`<${holes} empty item${holes > 1 ? "s" : ""}>`);
          holes = 0;
        };
        for (let i = 0; i < v.length && items.length < size; i++) {
          if (i in v) {
            flush();
            items.push(inner(v[i]));
          } else holes++;
        }
        flush();
        if (v.length > 100) items.push(`... ${v.length - 100} more item${v.length > 101 ? "s" : ""}`);
      } else if (v instanceof Map) {
        for (const [k, x] of v) items.push(`${inner(k)} => ${inner(x)}`);
      } else if (v instanceof Set) {
        for (const x of v) items.push(inner(x));
      }
      const list = items.length;
      for (const k of [...keys, ...symbols]) {
        const d = Object.getOwnPropertyDescriptor(v, k);
        const text = d.get ? (d.set ? "[Getter/Setter]" : "[Getter]") : d.set ? "[Setter]" : inner(d.value);
        items.push(`${key(k)}: ${text}`);
      }
      seen.pop();
      if (circular === v) {
        prefix = "<ref *1> " + prefix;
        circular = null;
      }
      if (!items.length) return `${prefix}${braces.join("")}`;
      const before = items.length;
      if (array && before > 6 && list === before) items = columns(items, v, indent);
      const nested = items.some((i) => i.includes("\n"));
      // Up to three inner levels stand on one line, if there is room.
      if (items.length === before && !nested && deepest - depth < 3) {
        const start = items.length + indent + braces[0].length + prefix.length + 10;
        const total = items.reduce((sum, i) => sum + i.length, items.length + start);
        if (total <= 80) return `${prefix}${braces[0]} ${items.join(", ")} ${braces[1]}`;
      }
      const space = " ".repeat(indent);
      return `${prefix}${braces[0]}\n${space}  ${items.join(`,\n${space}  `)}\n${space}${braces[1]}`;
    };
    return show(value, 0, 0, options.top === true);
  };

  const format = (...list) => {
    let text = "";
    if (typeof list[0] === "string" && list.length > 1 && list[0].includes("%")) {
      let at = 1;
      text = list[0].replace(/%[sdifjoOc%]/g, (m) => {
        if (m === "%%") return "%";
        if (at >= list.length) return m;
        const v = list[at++];
        switch (m) {
          case "%s": return typeof v === "object" && v !== null ? inspect(v, { depth: 0 }) : typeof v === "bigint" ? `${v}n` : typeof v === "number" ? number(v) : String(v);
          case "%d": return typeof v === "bigint" ? `${v}n` : typeof v === "object" ? "NaN" : number(Number(v));
          case "%i": return typeof v === "bigint" ? `${v}n` : number(parseInt(v));
          case "%f": return number(parseFloat(v));
          case "%j": return JSON.stringify(v);
          case "%c": return "";
          default: return inspect(v, { depth: 4 });
        }
      });
      list = list.slice(at);
      return [text, ...list.map((v) => inspect(v, { top: true }))].join(" ");
    }
    return list.map((v) => inspect(v, { top: true })).join(" ");
  };

  // --- events, timers ------------------------------------------------------------------------------------------
  class EventEmitter {
    on(event, listener) {
      const all = (strings.get(this) || strings.set(this, {}).get(this));
      (all[event] ||= []).push(listener);
      this._added?.(event);
      return this;
    }
    addListener(event, listener) { return this.on(event, listener); }
    once(event, listener) {
      const only = (...args) => {
        this.off(event, only);
        listener.apply(this, args);
      };
      return this.on(event, only);
    }
    off(event, listener) {
      const all = strings.get(this);
      if (all?.[event]) all[event] = all[event].filter((l) => l !== listener);
      return this;
    }
    removeListener(event, listener) { return this.off(event, listener); }
    removeAllListeners() { strings.delete(this); return this; }
    setMaxListeners() { return this; }
    listenerCount(event) { return strings.get(this)?.[event]?.length || 0; }
    emit(event, ...args) {
      const list = strings.get(this)?.[event] || [];
      for (const listener of list.slice()) listener.apply(this, args);
      return list.length > 0;
    }
  }

  const timers = [];
  let serial = 0;
  const now = () => host.clock(1) / 1e6;
  const later = (call, wait, args, repeat) => {
    const timer = { at: now() + Math.max(1, +wait || 0), serial: serial++, call, args, repeat: repeat ? Math.max(1, +wait || 0) : 0,
      ref() { return this; }, unref() { return this; }, hasRef() { return true; }, [Symbol.toPrimitive]() { return this.serial; } };
    timers.push(timer);
    return timer;
  };
  const cancel = (timer) => {
    const at = timers.findIndex((t) => t === timer || t.serial === timer);
    if (at >= 0) timers.splice(at, 1);
  };
  const soon = [], ticks = [];
  global.setTimeout = (call, wait, ...args) => later(call, wait, args, false);
  global.setInterval = (call, wait, ...args) => later(call, wait, args, true);
  global.clearTimeout = global.clearInterval = global.clearImmediate = cancel;
  global.setImmediate = (call, ...args) => { soon.push(() => call(...args)); };
  global.queueMicrotask ||= (call) => { Promise.resolve().then(call); };

  // --- Buffer, as far as fs and stdin hand it out ------------------------------------------------------------------
  class Buffer extends Uint8Array {
    static from(value, encoding) {
      if (typeof value !== "string") return super.from(value);
      if (encoding === "latin1" || encoding === "binary") return super.from([...value].map((c) => c.charCodeAt(0) & 255));
      const bytes = [];
      for (const c of unescape(encodeURIComponent(value.toWellFormed()))) bytes.push(c.charCodeAt(0));
      return super.from(bytes);
    }
    static alloc(n, fill = 0) { return new Buffer(n).fill(fill); }
    static isBuffer(v) { return v instanceof Buffer; }
    static byteLength(s) { return Buffer.from(s).length; }
    static concat(list) {
      const all = new Buffer(list.reduce((n, b) => n + b.length, 0));
      let at = 0;
      for (const b of list) { all.set(b, at); at += b.length; }
      return all;
    }
    toString(encoding = "utf8") {
      if (this._text !== undefined && /^utf-?8$|^ascii$/i.test(encoding)) return this._text;
      if (encoding === "hex") return [...this].map((b) => b.toString(16).padStart(2, "0")).join("");
      let text = "";
      for (const b of this) text += String.fromCharCode(b);
      if (encoding === "latin1" || encoding === "binary") return text;
      try { return decodeURIComponent(escape(text)); } catch { return text; }
    }
    toJSON() { return { type: "Buffer", data: [...this] }; }
  }
  global.Buffer = Buffer;
  global.TextEncoder ||= class { encode(s = "") { return new Uint8Array(Buffer.from(s)); } };
  global.TextDecoder ||= class { decode(b) { return Buffer.from(b).toString(); } };

  // --- process -------------------------------------------------------------------------------------------------
  let input = null;
  const stdinText = () => (input ??= host.readFile("0"));
  const out = (fd) => Object.assign(new EventEmitter(), {
    fd, isTTY: false, columns: 80, writable: true,
    write(text, encoding, done) {
      host.write(fd, typeof text === "string" ? text : Buffer.from(text).toString());
      done = typeof encoding === "function" ? encoding : done;
      if (done) process.nextTick(done);
      return true;
    },
    end(text) { if (text !== undefined) this.write(text); return this; },
    cork() {}, uncork() {},
  });
  const stdin = Object.assign(new EventEmitter(), {
    fd: 0, isTTY: false, encoding: null, flowing: false, ended: false, readable: true,
    setEncoding(e) { this.encoding = e || "utf8"; return this; },
    resume() { this._flow(); return this; },
    pause() { return this; }, ref() { return this; }, unref() { return this; },
    read() {
      if (this.taken) return null;
      this.taken = true;
      const text = stdinText();
      return text === "" ? null : this.encoding ? text : Buffer.from(text);
    },
    pipe(target) { this.on("data", (d) => target.write(d)).on("end", () => target.end?.()); return target; },
    _added(event) { if (event === "data" || event === "readable" || event === "end") this._flow(event); },
    _flow() {
      if (this.flowing) return;
      this.flowing = true;
      soon.push(() => {
        if (this.listenerCount("readable")) this.emit("readable");
        const chunk = this.read();
        if (chunk !== null) this.emit("data", chunk);
        if (this.listenerCount("readable")) this.emit("readable");
        this.ended = true;
        this.emit("end");
        this.emit("close");
      });
    },
    async *[Symbol.asyncIterator]() {
      const chunk = this.read();
      if (chunk !== null) yield chunk;
    },
  });
  const process = Object.assign(new EventEmitter(), {
    argv: ["/usr/bin/node"], argv0: "node", execArgv: [], env: {}, platform: "linux", arch: "wasm32", pid: 1,
    version: "v20.0.0", versions: { node: "20.0.0" }, exitCode: undefined, stdin, stdout: out(1), stderr: out(2),
    reallyExit(code) { host.quit(code | 0); },
    abort() { host.quit(134); },
    cwd: () => "/tmp", uptime: () => now() / 1e3, memoryUsage: () => ({ rss: 0, heapTotal: 0, heapUsed: 0, external: 0 }),
    nextTick: (call, ...args) => { ticks.push(() => call(...args)); },
    hrtime: Object.assign((since) => {
      const ns = host.clock(1);
      const t = [Math.floor(ns / 1e9), ns % 1e9];
      return since ? [t[0] - since[0] - (t[1] < since[1] ? 1 : 0), (t[1] - since[1] + 1e9) % 1e9] : t;
    }, { bigint: () => BigInt(host.clock(1)) }),
    emitWarning() {}, binding() { throw new Error("No such module"); },
  });
  process.exit = (code) => {
    if (code !== undefined) process.exitCode = code;
    const status = process.exitCode | 0;
    if (!process.leaving) {
      process.leaving = true;
      process.emit("exit", status);
    }
    host.quit(process.exitCode | 0);
  };
  global.process = process;
  global.global = global;
  const performance = { now, timeOrigin: 0, mark() {}, measure() {} };
  Object.defineProperty(global, "performance", { value: performance, writable: true, configurable: true });

  let group = "";
  const say = (fd) => (...list) => {
    let text = format(...list);
    if (group) text = group + text.replaceAll("\n", "\n" + group);
    host.write(fd, text + "\n");
  };
  const counts = {};
  global.console = {
    log: say(1), info: say(1), debug: say(1), error: say(2), warn: say(2), trace: say(2),
    dir: (v, o) => host.write(1, inspect(v, o) + "\n"),
    assert: (right, ...list) => { if (!right) say(2)(...(list.length ? ["Assertion failed:", ...list] : ["Assertion failed"])); },
    group: (...list) => { if (list.length) say(1)(...list); group += "  "; },
    groupEnd: () => { group = group.slice(2); },
    count: (label = "default") => say(1)(`${label}: ${(counts[label] = (counts[label] || 0) + 1)}`),
    time() {}, timeEnd() {}, timeLog() {}, table: say(1),
  };

  // --- modules -------------------------------------------------------------------------------------------------
  const absent = (name, code = "ENOENT") => Object.assign(new Error(`${code}: no such file or directory, open '${name}'`), { code, errno: -2 });
  const readFileSync = (name, options) => {
    const encoding = typeof options === "string" ? options : options?.encoding;
    const id = name === process.stdin.fd || name === "/dev/stdin" || name === "/proc/self/fd/0" ? "0" : String(name);
    const text = id === "0" ? stdinText() : host.readFile(id);
    if (text === null) throw absent(name);
    return encoding ? text : Buffer.from(text);
  };
  let position = 0;
  const fs = {
    readFileSync,
    readFile: (name, options, done) => {
      done = typeof options === "function" ? options : done;
      soon.push(() => {
        let text;
        try { text = readFileSync(name, options); } catch (error) { return done(error); }
        done(null, text);
      });
    },
    readSync: (fd, buffer, offset = 0, length = buffer.length) => {
      if (fd !== 0) throw absent(fd, "EBADF");
      const bytes = (fs._bytes ??= Buffer.from(stdinText()));
      const n = Math.min(length, bytes.length - position);
      buffer.set(bytes.subarray(position, position + n), offset);
      position += n;
      return n;
    },
    writeSync: (fd, text) => { (fd === 2 ? process.stderr : process.stdout).write(text); return text.length; },
    writeFileSync: (name, text) => {
      if (name === 1 || name === "/dev/stdout") return process.stdout.write(text);
      if (name === 2 || name === "/dev/stderr") return process.stderr.write(text);
      throw absent(name, "EROFS");
    },
    existsSync: (name) => name === "/dev/stdin" || host.readFile(String(name)) !== null,
    openSync: (name) => { if (name === "/dev/stdin") return 0; throw absent(name); },
    closeSync() {}, fstatSync: () => ({ size: Buffer.from(stdinText()).length, isFile: () => true }),
    statSync: () => ({ size: Buffer.from(stdinText()).length, isFile: () => true }),
    createReadStream: () => process.stdin,
  };
  fs.promises = { readFile: async (name, options) => readFileSync(name, options) };

  class Interface extends EventEmitter {
    constructor() {
      super();
      this.lines = stdinText().split(/\r\n|\n|\r/);
      if (this.lines.at(-1) === "") this.lines.pop();
      this.at = 0;
      this.questions = [];
      soon.push(() => this.flow());
    }
    flow() {
      while (!this.closed && !this.paused && this.at < this.lines.length) {
        const line = this.lines[this.at];
        if (this.questions.length) {
          this.at++;
          this.questions.shift()(line);
          host.runJobs();
        } else if (this.listenerCount("line")) {
          this.at++;
          this.emit("line", line);
        } else break;
      }
      if (this.at >= this.lines.length || !this.asked) this.close();
    }
    question(text, options, answer) {
      process.stdout.write(text);
      this.asked = true;
      this.questions.push(typeof options === "function" ? options : answer);
      soon.push(() => this.flow());
    }
    close() {
      if (this.closed) return;
      this.closed = true;
      this.emit("close");
    }
    pause() { this.paused = true; return this; }
    resume() { this.paused = false; soon.push(() => this.flow()); return this; }
    setPrompt() {}
    prompt() {}
    write() {}
    async *[Symbol.asyncIterator]() {
      while (this.at < this.lines.length) yield this.lines[this.at++];
      this.close();
    }
  }

  const same = (a, b, strict) => {
    if (strict ? Object.is(a, b) : a == b || (a !== a && b !== b)) return true;
    if (typeof a !== "object" || typeof b !== "object" || !a || !b) return false;
    if (strict && Object.getPrototypeOf(a) !== Object.getPrototypeOf(b)) return false;
    if (Array.isArray(a) !== Array.isArray(b)) return false;
    if (a instanceof Date && b instanceof Date) return +a === +b;
    if (a instanceof RegExp) return String(a) === String(b);
    if (a instanceof Map) return b instanceof Map && a.size === b.size && [...a].every(([k, v]) => b.has(k) && same(v, b.get(k), strict));
    if (a instanceof Set) return b instanceof Set && a.size === b.size && [...a].every((v) => b.has(v) || [...b].some((w) => same(v, w, strict)));
    const [p, q] = [Object.keys(a), Object.keys(b)];
    return p.length === q.length && p.every((k) => Object.hasOwn(b, k) && same(a[k], b[k], strict));
  };
  class AssertionError extends Error {
    constructor(o) {
      super(o.message);
      Object.assign(this, o, { name: "AssertionError", code: "ERR_ASSERTION" });
    }
  }
  const claim = (test, word) => (actual, expected, message) => {
    if (message instanceof Error) throw message;
    if (!test(actual, expected)) throw new AssertionError({ message: message ?? `${inspect(actual)} ${word} ${inspect(expected)}`, actual, expected, operator: word });
  };
  const assert = (value, message) => {
    if (!value) throw message instanceof Error ? message : new AssertionError({ message: message ?? "The expression evaluated to a falsy value", actual: value, expected: true, operator: "==" });
  };
  Object.assign(assert, {
    ok: assert, AssertionError,
    equal: claim((a, b) => a == b || (a !== a && b !== b), "=="), notEqual: claim((a, b) => a != b, "!="),
    strictEqual: claim(Object.is, "strictEqual"), notStrictEqual: claim((a, b) => !Object.is(a, b), "notStrictEqual"),
    deepEqual: claim((a, b) => same(a, b, false), "deepEqual"), deepStrictEqual: claim((a, b) => same(a, b, true), "deepStrictEqual"),
    notDeepEqual: claim((a, b) => !same(a, b, false), "notDeepEqual"), notDeepStrictEqual: claim((a, b) => !same(a, b, true), "notDeepStrictEqual"),
    fail: (message) => { throw new AssertionError({ message: message ?? "Failed" }); },
    throws: (call, kind) => {
      try { call(); } catch (error) {
        if (typeof kind === "function" && kind.prototype !== undefined && !(error instanceof kind)) throw error;
        if (kind instanceof RegExp && !kind.test(String(error))) throw error;
        return;
      }
      throw new AssertionError({ message: "Missing expected exception." });
    },
  });
  assert.strict = assert;

  const util = { inspect, format, isDeepStrictEqual: (a, b) => same(a, b, true), types: {},
    inherits: (c, s) => Object.setPrototypeOf(c.prototype, s.prototype),
    promisify: (f) => (...args) => new Promise((good, bad) => f(...args, (e, v) => (e ? bad(e) : good(v)))),
    TextEncoder: global.TextEncoder, TextDecoder: global.TextDecoder };
  const readline = { createInterface: () => new Interface() };
  readline.promises = { createInterface: () => {
    const face = new Interface();
    const ask = face.question.bind(face);
    face.question = (text) => new Promise((answer) => ask(text, answer));
    return face;
  } };
  const own = {
    fs, "fs/promises": fs.promises, readline, "readline/promises": readline.promises, util, assert, "assert/strict": assert,
    process, events: Object.assign(EventEmitter, { EventEmitter }), buffer: { Buffer }, timers: global,
    os: { EOL: "\n", platform: () => "linux", cpus: () => [{}] }, perf_hooks: { performance },
    path: { join: (...p) => p.join("/"), resolve: (...p) => p.join("/"), basename: (p) => p.split("/").pop(), sep: "/" },
    string_decoder: { StringDecoder: class { write(b) { return b.toString(); } end() { return ""; } } },
  };
  const cache = {};
  const load = (name, text) => {
    const module = { exports: {}, id: name, filename: name, loaded: false, children: [], paths: [] };
    cache[name] = module;
    const body = text.startsWith("#!") ? "//" + text : text;
    const compiled = host.evaluate(`(function (exports, require, module, __filename, __dirname) {${body}\n})`, name);
    compiled.call(module.exports, module.exports, require, module, name, "/box");
    module.loaded = true;
    return module.exports;
  };
  const require = (name) => {
    const bare = String(name).replace(/^node:/, "");
    if (Object.hasOwn(own, bare)) return own[bare];
    if (cache[bare]) return cache[bare].exports;
    const text = host.builtIn(bare);
    if (text === null) throw Object.assign(new Error(`Cannot find module '${name}'`), { code: "MODULE_NOT_FOUND" });
    return load(bare, text);
  };
  require.resolve = (name) => name;
  require.main = cache;

  // --- the program -----------------------------------------------------------------------------------------------
  const rejected = new Map();
  Object.defineProperty(global, "__rejected", { value: (p, why, handled) => handled ? rejected.delete(p) : rejected.set(p, why) });
  const fail = (error) => {
    if (process.listenerCount("uncaughtException")) return process.emit("uncaughtException", error);
    host.write(2, "Uncaught " + inspect(error) + "\n");
    process.exitCode = 1;
    process.exit();
  };
  const turn = (call) => {
    try {
      call();
      do {
        while (ticks.length) ticks.shift()();
        host.runJobs();
      } while (ticks.length);
    } catch (error) {
      fail(error);
    }
    for (const why of rejected.values()) fail(why);
    rejected.clear();
  };
  return (path) => {
    process.argv.push(path);
    turn(() => load(path, host.readFile(path)));
    for (;;) {
      if (soon.length) turn(soon.shift());
      else if (timers.length) {
        timers.sort((a, b) => a.at - b.at || a.serial - b.serial);
        const timer = timers[0];
        const wait = timer.at - now();
        if (wait > 0) host.pause(wait);
        if (timer.repeat) timer.at = now() + timer.repeat;
        else timers.shift();
        turn(() => timer.call(...timer.args));
      } else break;
    }
    process.exit();
  };
})
