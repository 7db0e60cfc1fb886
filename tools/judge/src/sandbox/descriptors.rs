//! File descriptors over a Unix socket: the ends of the pipes that join a judged program and an interactor.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

const COUNT: usize = 2;
const BYTES: usize = COUNT * size_of::<RawFd>();

/// Room for one control message, aligned as the kernel wants it.
#[repr(C)]
union Control {
    header: libc::cmsghdr,
    bytes: [u8; 64],
}

fn with_message<T>(act: impl FnOnce(&mut libc::msghdr) -> T) -> T {
    let mut byte = 0_u8;
    let mut part = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let mut control = Control { bytes: [0; 64] };
    // SAFETY: zero is a valid value of every field.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    // SAFETY: the macro only computes.
    message.msg_controllen = unsafe { libc::CMSG_SPACE(BYTES as u32) } as usize;
    act(&mut message)
}

/// Sends two descriptors, with one byte to carry them.
///
/// # Errors
/// When the other side is gone.
pub fn send(socket: &UnixStream, descriptors: &[OwnedFd; COUNT]) -> io::Result<()> {
    let numbers = [descriptors[0].as_raw_fd(), descriptors[1].as_raw_fd()];
    with_message(|message| {
        // SAFETY: the message points to a control buffer that is large enough for two descriptors and outlives the
        // call, and so does its one byte.
        let sent = unsafe {
            let header = libc::CMSG_FIRSTHDR(message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(BYTES as u32) as usize;
            std::ptr::copy_nonoverlapping(numbers.as_ptr().cast::<u8>(), libc::CMSG_DATA(header), BYTES);
            libc::sendmsg(socket.as_raw_fd(), message, libc::MSG_NOSIGNAL)
        };
        if sent == 1 { Ok(()) } else { Err(io::Error::last_os_error()) }
    })
}

/// Receives what [`send`] sent.
///
/// # Errors
/// When the other side is gone or sent something else.
pub fn receive(socket: &UnixStream) -> io::Result<[OwnedFd; COUNT]> {
    with_message(|message| {
        // SAFETY: as above; the kernel fills the buffers, and descriptors that arrive are ours alone.
        unsafe {
            if libc::recvmsg(socket.as_raw_fd(), message, libc::MSG_CMSG_CLOEXEC) != 1 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let header = libc::CMSG_FIRSTHDR(message);
            let wanted = libc::CMSG_LEN(BYTES as u32) as usize;
            if header.is_null() || (*header).cmsg_type != libc::SCM_RIGHTS || (*header).cmsg_len != wanted {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "no descriptors came"));
            }
            let mut numbers = [-1 as RawFd; COUNT];
            std::ptr::copy_nonoverlapping(libc::CMSG_DATA(header), numbers.as_mut_ptr().cast::<u8>(), BYTES);
            Ok(numbers.map(|fd| OwnedFd::from_raw_fd(fd)))
        }
    })
}

/// A pipe: the end to read from, the end to write to.
///
/// # Errors
/// When there are no descriptors left.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: the array has two entries; the descriptors are ours alone.
    unsafe {
        if libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) == -1 {
            return Err(io::Error::last_os_error());
        }
        Ok((OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read, Write};

    #[test]
    fn descriptors_arrive_and_work() {
        let (a, b) = UnixStream::pair().unwrap();
        let (first, second) = (pipe().unwrap(), pipe().unwrap());
        send(&a, &[first.0, second.1]).unwrap();
        let [read, write] = receive(&b).unwrap();
        File::from(first.1).write_all(b"in").unwrap();
        File::from(write).write_all(b"out").unwrap();
        let mut text = String::new();
        File::from(read).read_to_string(&mut text).unwrap();
        File::from(second.0).read_to_string(&mut text).unwrap();
        assert_eq!(text, "inout");
        // A byte without descriptors is not taken for them.
        (&a).write_all(&[0]).unwrap();
        assert!(receive(&b).is_err());
    }
}
