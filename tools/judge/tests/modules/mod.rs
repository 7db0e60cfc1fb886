//! Writes WebAssembly modules byte by byte, well-formed and not (core specification, chapter 5).

/// Unsigned LEB128.
pub fn leb(mut n: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (n & 0x7f) as u8;
        n >>= 7;
        bytes.push(if n == 0 { low } else { low | 0x80 });
        if n == 0 {
            return bytes;
        }
    }
}

pub fn section(id: u8, body: &[u8]) -> Vec<u8> {
    [vec![id], leb(body.len() as u64), body.to_vec()].concat()
}

pub fn list(items: &[Vec<u8>]) -> Vec<u8> {
    [leb(items.len() as u64), items.concat()].concat()
}

pub fn name(text: &str) -> Vec<u8> {
    [leb(text.len() as u64), text.as_bytes().to_vec()].concat()
}

/// Instructions.
pub mod code {
    /// `i32.const`
    pub fn i32(n: i32) -> Vec<u8> {
        let mut n = i64::from(n);
        let mut bytes = vec![0x41];
        loop {
            let low = (n & 0x7f) as u8;
            n >>= 7;
            let done = (n == 0 && low & 0x40 == 0) || (n == -1 && low & 0x40 != 0);
            bytes.push(if done { low } else { low | 0x80 });
            if done {
                return bytes;
            }
        }
    }

    /// Stores a number at an address.
    pub fn store(at: i32, n: i32) -> Vec<u8> {
        [i32(at), i32(n), vec![0x36, 2, 0]].concat()
    }

    pub fn forever(body: &[u8]) -> Vec<u8> {
        [&[0x03, 0x40], body, &[0x0c, 0, 0x0b]].concat()
    }
}

/// Functions of WASI that a module imports, as functions 0 to 3, with the number of their parameters.
pub fn imported() -> [(&'static str, usize); 4] {
    [("fd_write", 4), ("random_get", 2), ("poll_oneoff", 4), ("fd_read", 4)]
}

/// A module with a memory of two pages and `_start`, its function 4.
pub struct Module {
    imports: Vec<Vec<u8>>,
    table: Option<u64>,
    memories: Vec<Vec<u8>>,
    locals: u64,
    code: Vec<u8>,
    more: Vec<Vec<u8>>,
    data: Vec<Vec<u8>>,
    starts: bool,
    exports_memory: bool,
}

impl Default for Module {
    fn default() -> Self {
        Self {
            imports: Vec::new(),
            table: None,
            memories: Vec::new(),
            locals: 0,
            code: Vec::new(),
            more: Vec::new(),
            data: Vec::new(),
            starts: false,
            exports_memory: true,
        }
    }
}

impl Module {
    /// Another function, of type 0, imported after the four: `_start` is then one further.
    pub fn import(mut self, module: &str, function: &str, kind: u8) -> Self {
        self.imports.push([name(module), name(function), vec![0, kind]].concat());
        self
    }

    /// A table of functions, of this size.
    pub fn table(mut self, elements: u64) -> Self {
        self.table = Some(elements);
        self
    }

    /// A memory of this type in place of the usual one.
    pub fn memory(mut self, limits: &[u8]) -> Self {
        self.memories.push(limits.to_vec());
        self
    }

    pub fn locals(mut self, count: u64) -> Self {
        self.locals = count;
        self
    }

    /// The body of `_start`.
    pub fn code(mut self, code: &[u8]) -> Self {
        self.code = code.to_vec();
        self
    }

    /// A further function.
    pub fn function(mut self, code: &[u8]) -> Self {
        self.more.push(body(0, code));
        self
    }

    pub fn data(mut self, at: i32, bytes: &[u8]) -> Self {
        self.data
            .push([vec![0], code::i32(at), vec![0x0b], leb(bytes.len() as u64), bytes.to_vec()].concat());
        self
    }

    /// `_start` is the start function too.
    pub fn starting(mut self) -> Self {
        self.starts = true;
        self
    }

    pub fn hidden(mut self) -> Self {
        self.exports_memory = false;
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let wasi = |(function, parameters): (&str, usize)| {
            [name("wasi_snapshot_preview1"), name(function), vec![0, if parameters == 2 { 1 } else { 2 }]]
                .concat()
        };
        let imports: Vec<Vec<u8>> = imported().map(wasi).into_iter().chain(self.imports.clone()).collect();
        let start = imports.len() as u64;
        let types = [
            vec![0x60, 0, 0],
            vec![0x60, 2, 0x7f, 0x7f, 1, 0x7f],
            [vec![0x60, 4], vec![0x7f; 4], vec![1, 0x7f]].concat(),
        ];
        let functions = vec![vec![0]; 1 + self.more.len()];
        let memories = if self.memories.is_empty() { vec![vec![0, 2]] } else { self.memories.clone() };
        let mut exports = vec![[name("_start"), vec![0], leb(start)].concat()];
        if self.exports_memory {
            exports.push([name("memory"), vec![2, 0]].concat());
        }
        let bodies: Vec<Vec<u8>> =
            std::iter::once(body(self.locals, &self.code)).chain(self.more.iter().cloned()).collect();
        let mut bytes = b"\0asm\x01\0\0\0".to_vec();
        bytes.extend(section(1, &list(&types)));
        bytes.extend(section(2, &list(&imports)));
        bytes.extend(section(3, &list(&functions)));
        if let Some(elements) = self.table {
            bytes.extend(section(4, &list(&[[vec![0x70, 0], leb(elements)].concat()])));
        }
        bytes.extend(section(5, &list(&memories)));
        bytes.extend(section(7, &list(&exports)));
        if self.starts {
            bytes.extend(section(8, &leb(start)));
        }
        bytes.extend(section(10, &list(&bodies)));
        if !self.data.is_empty() {
            bytes.extend(section(11, &list(&self.data)));
        }
        bytes
    }
}

/// A function's body, with locals of type i32.
fn body(locals: u64, code: &[u8]) -> Vec<u8> {
    let locals = if locals == 0 { vec![0] } else { [vec![1], leb(locals), vec![0x7f]].concat() };
    let whole = [locals, code.to_vec(), vec![0x0b]].concat();
    [leb(whole.len() as u64), whole].concat()
}
