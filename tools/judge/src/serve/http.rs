//! As much of HTTP/1.1 (RFC 9112) as an API on a trusted network path needs: requests with a bounded head and body, read
//! within a bounded time, and responses with a length. `httparse` reads heads; nothing is done before a request is whole.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

const MAX_HEAD: usize = 16 << 10;
const MAX_HEADERS: usize = 64;
const LINGER: Duration = Duration::from_secs(2);

/// A connection whose waits can be bounded.
pub trait Stream: Read + Write {
    /// # Errors
    /// When the system refuses.
    fn patience(&self, read: Duration, write: Duration) -> io::Result<()>;
    /// Says that nothing more will be written.
    fn hang_up(&self);
}

impl Stream for TcpStream {
    fn hang_up(&self) {
        let _ = self.shutdown(Shutdown::Write);
    }

    fn patience(&self, read: Duration, write: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(read)).and_then(|()| self.set_write_timeout(Some(write)))
    }
}

impl Stream for UnixStream {
    fn hang_up(&self) {
        let _ = self.shutdown(Shutdown::Write);
    }

    fn patience(&self, read: Duration, write: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(read)).and_then(|()| self.set_write_timeout(Some(write)))
    }
}

#[derive(Debug, Default)]
pub struct Request {
    pub method: String,
    /// Without the query.
    pub path: String,
    pub content_type: String,
    pub authorization: String,
    pub body: Vec<u8>,
    pub keep_alive: bool,
}

#[derive(Debug, PartialEq)]
pub struct Response {
    pub status: u16,
    /// JSON.
    pub body: String,
}

impl Response {
    pub fn json(status: u16, body: &impl serde::Serialize) -> Self {
        Self { status, body: serde_json::to_string(body).unwrap_or_default() }
    }

    /// What went wrong, as SandboxFusion says it.
    pub fn detail(status: u16, reason: impl Into<String>) -> Self {
        Self::json(status, &serde_json::json!({ "detail": reason.into() }))
    }
}

/// How long a connection may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Between requests.
    pub idle: Duration,
    /// For a whole request, from its first byte.
    pub request: Duration,
}

/// One side of a connection: what has been read and not yet used stays here.
pub struct Connection<S> {
    stream: S,
    buffer: Vec<u8>,
    max_body: usize,
    patience: Patience,
}

/// Why there is no request.
pub enum Broken {
    /// The other side is gone, or said nothing for too long.
    Gone,
    /// It is told, and the connection closed.
    Bad(Response),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                Self::Bad(Response::detail(408, "the request took too long"))
            }
            _ => Self::Gone,
        }
    }
}

fn bad(reason: &str) -> Broken {
    Broken::Bad(Response::detail(400, reason))
}

fn too_long() -> Broken {
    Broken::Bad(Response::detail(413, "the request's body is too long"))
}

impl<S: Stream> Connection<S> {
    pub fn new(stream: S, max_body: usize, patience: Patience) -> Self {
        Self { stream, buffer: Vec::new(), max_body, patience }
    }

    /// The next request. `refuse` sees it before its body is read.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn read(&mut self, refuse: impl Fn(&Request) -> Option<Response>) -> Result<Request, Broken> {
        if self.buffer.is_empty() {
            let since = Instant::now() + self.patience.idle;
            match self.more(since) {
                Ok(()) => {}
                Err(_) => return Err(Broken::Gone),
            }
        }
        let until = Instant::now() + self.patience.request;
        let (mut request, framing) = loop {
            if let Some((request, framing, used)) = head(&self.buffer)? {
                self.buffer.drain(..used);
                break (request, framing);
            }
            if self.buffer.len() > MAX_HEAD {
                return Err(Broken::Bad(Response::detail(431, "the request's head is too long")));
            }
            self.more(until)?;
        };
        if let Some(response) = refuse(&request) {
            return Err(Broken::Bad(response));
        }
        if framing.expects_continue {
            self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        request.body = match framing.length {
            Length::Known(length) if length > self.max_body => return Err(too_long()),
            Length::Known(length) => self.take(length, until)?,
            Length::Chunked => self.chunks(until)?,
        };
        Ok(request)
    }

    /// Reads at least one byte more.
    fn more(&mut self, until: Instant) -> io::Result<()> {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.patience(left, self.patience.request)?;
        let mut part = [0; 16 << 10];
        match self.stream.read(&mut part)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            n => {
                self.buffer.extend_from_slice(&part[..n]);
                Ok(())
            }
        }
    }

    fn take(&mut self, length: usize, until: Instant) -> Result<Vec<u8>, Broken> {
        while self.buffer.len() < length {
            self.more(until)?;
        }
        let rest = self.buffer.split_off(length);
        Ok(std::mem::replace(&mut self.buffer, rest))
    }

    /// RFC 9112, section 7.1; trailers are read and dropped.
    fn chunks(&mut self, until: Instant) -> Result<Vec<u8>, Broken> {
        let mut body = Vec::new();
        loop {
            let (used, size) = loop {
                match httparse::parse_chunk_size(&self.buffer) {
                    Ok(httparse::Status::Complete(found)) => break found,
                    Ok(httparse::Status::Partial) if self.buffer.len() < MAX_HEAD => self.more(until)?,
                    _ => return Err(bad("a chunk has no size")),
                }
            };
            self.buffer.drain(..used);
            if size == 0 {
                break;
            }
            let size = usize::try_from(size).unwrap_or(usize::MAX);
            if size > self.max_body - body.len() {
                return Err(too_long());
            }
            let chunk = self.take(size + 2, until)?;
            if !chunk.ends_with(b"\r\n") {
                return Err(bad("a chunk is longer than its size"));
            }
            body.extend_from_slice(&chunk[..size]);
        }
        loop {
            match self.buffer.windows(2).position(|w| w == b"\r\n") {
                Some(0) => {
                    self.buffer.drain(..2);
                    return Ok(body);
                }
                Some(at) => drop(self.buffer.drain(..at + 2)),
                None if self.buffer.len() < MAX_HEAD => self.more(until)?,
                None => return Err(bad("trailers are too long")),
            }
        }
    }

    /// The last response. What the other side still sends is read for a moment and dropped: closing at once would take
    /// the response away from it (RFC 9112, section 9.6).
    pub fn refuse(mut self, response: &Response) {
        if self.write(response, false).is_err() {
            return;
        }
        self.stream.hang_up();
        let until = Instant::now() + LINGER;
        while self.more(until).is_ok() {
            self.buffer.clear();
        }
    }

    /// # Errors
    /// When the other side is gone.
    pub fn write(&mut self, response: &Response, keep_alive: bool) -> io::Result<()> {
        let reason = match response.status {
            200 => "OK",
            400 => "Bad Request",
            401 => "Unauthorized",
            404 => "Not Found",
            405 => "Method Not Allowed",
            408 => "Request Timeout",
            413 => "Content Too Large",
            415 => "Unsupported Media Type",
            422 => "Unprocessable Content",
            431 => "Request Header Fields Too Large",
            501 => "Not Implemented",
            _ => "Internal Server Error",
        };
        let connection = if keep_alive { "keep-alive" } else { "close" };
        let challenge = if response.status == 401 { "WWW-Authenticate: Bearer\r\n" } else { "" };
        let head = format!(
            "HTTP/1.1 {} {reason}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
             {challenge}Connection: {connection}\r\n\r\n",
            response.status,
            response.body.len(),
        );
        self.stream.write_all(&[head.as_bytes(), response.body.as_bytes()].concat())
    }
}

enum Length {
    Known(usize),
    Chunked,
}

struct Framing {
    length: Length,
    expects_continue: bool,
}

/// The request's head, once it is whole: the request without its body, how the body is framed, and the head's length.
fn head(buffer: &[u8]) -> Result<Option<(Request, Framing, usize)>, Broken> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    let used = match parsed.parse(buffer) {
        Ok(httparse::Status::Complete(used)) => used,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(e) => return Err(bad(&format!("no HTTP request: {e}"))),
    };
    let mut request = Request {
        method: parsed.method.unwrap_or_default().to_owned(),
        path: parsed.path.unwrap_or_default().split('?').next().unwrap_or_default().to_owned(),
        keep_alive: parsed.version == Some(1),
        ..Request::default()
    };
    let (mut length, mut chunked, mut expects_continue) = (None, false, false);
    for header in parsed.headers.iter() {
        let value = String::from_utf8_lossy(header.value).trim().to_owned();
        match header.name.to_ascii_lowercase().as_str() {
            "content-length" => {
                let n: usize = value.parse().map_err(|_| bad("Content-Length is no number"))?;
                // Two lengths are how requests are smuggled (RFC 9112, 11.2).
                if length.replace(n).is_some_and(|earlier| earlier != n) {
                    return Err(bad("two lengths"));
                }
            }
            "transfer-encoding" if value.eq_ignore_ascii_case("chunked") => chunked = true,
            "transfer-encoding" => return Err(bad("this transfer encoding is not known")),
            "content-type" => request.content_type = value,
            "authorization" => request.authorization = value,
            "connection" => {
                let has = |word: &str| value.split(',').any(|w| w.trim().eq_ignore_ascii_case(word));
                request.keep_alive = (request.keep_alive || has("keep-alive")) && !has("close");
            }
            "expect" => expects_continue = value.eq_ignore_ascii_case("100-continue"),
            _ => {}
        }
    }
    let length = match (chunked, length) {
        (true, Some(_)) => return Err(bad("a length and chunks")),
        (true, None) => Length::Chunked,
        (false, n) => Length::Known(n.unwrap_or(0)),
    };
    Ok(Some((request, Framing { length, expects_continue }, used)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is read, and what is written, one direction each.
    struct Pair(io::Cursor<Vec<u8>>, Vec<u8>);

    impl Read for Pair {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            // Bytes come one by one, the worst case.
            let n = buffer.len().min(1);
            self.0.read(&mut buffer[..n])
        }
    }

    impl Write for Pair {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1.write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Stream for Pair {
        fn patience(&self, _: Duration, _: Duration) -> io::Result<()> {
            Ok(())
        }
        fn hang_up(&self) {}
    }

    fn connection(text: &str) -> Connection<Pair> {
        let second = Duration::from_secs(5);
        let pair = Pair(io::Cursor::new(text.as_bytes().to_vec()), Vec::new());
        Connection::new(pair, 64, Patience { idle: second, request: second })
    }

    #[test]
    fn requests_are_read_one_after_another() {
        let mut c = connection(
            "POST /a?b=c HTTP/1.1\r\ncontent-LENGTH: 3\r\nAuthorization: Bearer x\r\n\r\nabc\
             POST /d HTTP/1.1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n2\r\nde\r\n1;x=y\r\nf\r\n0\r\nT: v\r\n\r\n",
        );
        let Ok(first) = c.read(|_| None) else { panic!() };
        assert_eq!((first.path.as_str(), &first.body[..], first.keep_alive), ("/a", &b"abc"[..], true));
        assert_eq!(first.authorization, "Bearer x");
        let Ok(second) = c.read(|_| None) else { panic!() };
        assert_eq!((&second.body[..], second.keep_alive), (&b"def"[..], false));
        assert!(matches!(c.read(|_| None), Err(Broken::Gone)));
    }

    #[test]
    fn what_is_no_request_or_too_much_is_refused() {
        let long = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(MAX_HEAD));
        for (text, status) in [
            ("nonsense\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
            ("POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nContent-Length: 65\r\n\r\n", 413),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffff\r\n", 413),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
            (&long, 431),
        ] {
            match connection(text).read(|_| None) {
                Err(Broken::Bad(response)) => assert_eq!(response.status, status, "{text:.60}"),
                _ => panic!("{text:.60}"),
            }
        }
        // Who is turned away is so before the body is there.
        let head = "POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n";
        assert!(matches!(connection(head).read(|_| Some(Response::detail(401, ""))), Err(Broken::Bad(_))));
        // Cut short anywhere, there is no request.
        let whole = "POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nab";
        assert!(
            (0..whole.len()).all(|n| matches!(connection(&whole[..n]).read(|_| None), Err(Broken::Gone)))
        );
    }
}
