//! TensorBoard event files: a chain of TFRecords, each a protobuf `Event` with one scalar.
//!
//! Formats: TFRecord is length (u64), masked CRC-32C of the length, data, masked CRC-32C of the data, little-endian
//! (tensorflow/core/lib/io/record_writer.h); the mask is a rotation by 15 and 0xa282ead8 (core/lib/hash/crc32c.h).
//! `Event`: wall_time double = 1, step int64 = 2, file_version string = 3, summary = 5, session_log = 7; `Summary`:
//! repeated value = 1; `Value`: tag string = 1, simple_value float = 2; `SessionLog`: status = 1, START being 1
//! (core/util/event.proto, core/framework/summary.proto).

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

pub struct Events {
    file: File,
    pending: Vec<u8>,
}

impl Events {
    /// A new event file in `dir`, for steps after `step`. It opens with the start of a session, at which TensorBoard
    /// forgets what an earlier life of the run said of those steps.
    pub fn create(dir: &Path, step: u64) -> Result<Self> {
        let place = || dir.display().to_string();
        fs::create_dir_all(dir).with_context(place)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // TensorBoard reads a folder's files in the order of their names.
        let name = format!("events.out.tfevents.{:010}.{step}.{}", now.as_secs(), std::process::id());
        let file = File::create(dir.join(name)).with_context(place)?;
        let mut events = Self { file, pending: Vec::new() };
        let mut event = Vec::new();
        double(&mut event, 1, now.as_secs_f64());
        bytes(&mut event, 3, b"brain.Event:2");
        record(&mut events.pending, &event);
        let mut start = Vec::new();
        double(&mut start, 1, now.as_secs_f64());
        start.push(2 << 3);
        varint(&mut start, step + 1);
        bytes(&mut start, 7, &[1 << 3, 1]);
        record(&mut events.pending, &start);
        Ok(events)
    }

    pub fn scalar(&mut self, step: u64, tag: &str, value: f64) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        record(&mut self.pending, &scalar(now.as_secs_f64(), step, tag, value as f32));
    }

    pub fn flush(&mut self) -> Result<()> {
        self.file.write_all(&self.pending).context("the event file")?;
        self.pending.clear();
        Ok(())
    }
}

fn scalar(time: f64, step: u64, tag: &str, number: f32) -> Vec<u8> {
    let (mut value, mut summary, mut event) = (Vec::new(), Vec::new(), Vec::new());
    bytes(&mut value, 1, tag.as_bytes());
    value.push(2 << 3 | 5);
    value.extend(number.to_le_bytes());
    bytes(&mut summary, 1, &value);
    double(&mut event, 1, time);
    event.push(2 << 3);
    varint(&mut event, step);
    bytes(&mut event, 5, &summary);
    event
}

fn varint(out: &mut Vec<u8>, mut x: u64) {
    while x >= 0x80 {
        out.push(x as u8 | 0x80);
        x >>= 7;
    }
    out.push(x as u8);
}

fn double(out: &mut Vec<u8>, field: u8, x: f64) {
    out.push(field << 3 | 1);
    out.extend(x.to_le_bytes());
}

fn bytes(out: &mut Vec<u8>, field: u8, x: &[u8]) {
    out.push(field << 3 | 2);
    varint(out, x.len() as u64);
    out.extend(x);
}

fn record(out: &mut Vec<u8>, data: &[u8]) {
    let length = (data.len() as u64).to_le_bytes();
    out.extend(length);
    out.extend(masked(crc32c(&length)).to_le_bytes());
    out.extend(data);
    out.extend(masked(crc32c(data)).to_le_bytes());
}

fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Castagnoli's polynomial, reflected, bit by bit: a few kilobytes a step need no table.
fn crc32c(data: &[u8]) -> u32 {
    !data.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ (crc & 1).wrapping_neg() & 0x82f6_3b78)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_have_the_published_values() {
        // RFC 3720, appendix B.4.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    }

    /// The length-delimited, varint and fixed fields of a message, by number.
    fn fields(mut m: &[u8]) -> Vec<(u64, Vec<u8>)> {
        fn take<'a>(m: &mut &'a [u8], n: usize) -> &'a [u8] {
            let (head, tail) = m.split_at(n);
            *m = tail;
            head
        }
        fn number(m: &mut &[u8]) -> u64 {
            let (mut x, mut shift) = (0, 0);
            loop {
                let b = take(m, 1)[0];
                x |= u64::from(b & 0x7f) << shift;
                shift += 7;
                if b < 0x80 {
                    return x;
                }
            }
        }
        let mut found = Vec::new();
        while !m.is_empty() {
            let key = number(&mut m);
            let value = match key & 7 {
                0 => number(&mut m).to_le_bytes().to_vec(),
                1 => take(&mut m, 8).to_vec(),
                5 => take(&mut m, 4).to_vec(),
                2 => {
                    let n = number(&mut m) as usize;
                    take(&mut m, n).to_vec()
                }
                other => panic!("wire type {other}"),
            };
            found.push((key >> 3, value));
        }
        found
    }

    #[test]
    fn what_is_written_reads_back() {
        let temp = tempfile::tempdir().unwrap();
        let mut events = Events::create(temp.path(), 299).unwrap();
        events.scalar(300, "loss", 2.5);
        events.scalar(301, "loss", -0.125);
        events.flush().unwrap();
        let path = fs::read_dir(temp.path()).unwrap().next().unwrap().unwrap().path();
        let all = fs::read(path).unwrap();
        let (mut rest, mut seen, mut version, mut begun) =
            (all.as_slice(), Vec::new(), Vec::new(), Vec::new());
        while !rest.is_empty() {
            let n = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            let sum = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap());
            assert_eq!(
                (sum(8), sum(12 + n)),
                (masked(crc32c(&rest[..8])), masked(crc32c(&rest[12..12 + n])))
            );
            let event: std::collections::HashMap<_, _> = fields(&rest[12..12 + n]).into_iter().collect();
            assert_eq!(event[&1].len(), 8);
            if let Some(v) = event.get(&3) {
                version.clone_from(v);
            }
            if let Some(session) = event.get(&7) {
                begun.push((event[&2].clone(), fields(session)));
            }
            if let Some(summary) = event.get(&5) {
                let value: std::collections::HashMap<_, _> =
                    fields(&fields(summary)[0].1).into_iter().collect();
                let step = u64::from_le_bytes(event[&2].clone().try_into().unwrap());
                let number = f32::from_le_bytes(value[&2].clone().try_into().unwrap());
                seen.push((step, String::from_utf8(value[&1].clone()).unwrap(), number));
            }
            rest = &rest[16 + n..];
        }
        assert_eq!(version, b"brain.Event:2");
        let number = |n: u64| n.to_le_bytes().to_vec();
        assert_eq!(begun, [(number(300), vec![(1, number(1))])]);
        assert_eq!(seen, [(300, "loss".to_owned(), 2.5), (301, "loss".to_owned(), -0.125)]);
    }
}
