//! Verdicts kept on disk by what they depend on, in a file that is only ever appended to. A line is
//! `{"key":"…","verdict":{…}}`; one that a kill cut short is passed over. Memory holds a key and a place a verdict.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use cognate_records::{Error, Result, Verdict};
use serde::{Deserialize, Serialize};

/// Longest line: far more than a verdict of any use.
const MAX_LINE: u64 = 64 << 20;

#[derive(Serialize, Deserialize)]
struct Entry {
    key: String,
    verdict: Verdict,
}

pub struct Results {
    path: PathBuf,
    file: File,
    places: HashMap<u128, (u64, u32)>,
}

impl Results {
    /// Opens or makes the file; in a folder, `results.jsonl`.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn open(path: &Path) -> Result<Self> {
        let path = if path.is_dir() { path.join("results.jsonl") } else { path.to_path_buf() };
        let fault = |e| Error::io(&path, e);
        let file = File::options().create(true).read(true).append(true).open(&path).map_err(fault)?;
        let mut places = HashMap::new();
        let mut input = BufReader::with_capacity(1 << 18, file.try_clone().map_err(fault)?);
        let (mut line, mut offset) = (Vec::new(), 0);
        loop {
            line.clear();
            let read = input.by_ref().take(MAX_LINE).read_until(b'\n', &mut line).map_err(fault)?;
            if read == 0 {
                break;
            }
            if let Some(key) = key_of(&line) {
                places.insert(key, (offset, read as u32));
            }
            offset += read as u64;
        }
        Ok(Self { path, file, places })
    }

    /// The verdict kept under this key. A line that turns out to be damaged is as good as none.
    pub fn get(&self, key: u128) -> Option<Verdict> {
        let &(offset, length) = self.places.get(&key)?;
        let mut line = vec![0; length as usize];
        self.file.read_exact_at(&mut line, offset).ok()?;
        let entry: Entry = serde_json::from_slice(&line).ok()?;
        (entry.key == name(key)).then_some(entry.verdict)
    }

    /// Keeps a verdict. Several judges may share the file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn put(&mut self, key: u128, verdict: &Verdict) -> Result<()> {
        let entry = Entry { key: name(key), verdict: verdict.clone() };
        let text = serde_json::to_string(&entry).expect("a verdict holds only JSON types") + "\n";
        let place = append(&mut self.file, text.as_bytes()).map_err(|e| Error::io(&self.path, e))?;
        self.places.insert(key, (place, text.len() as u32));
        Ok(())
    }

    pub fn len(&self) -> usize {
        self.places.len()
    }
}

fn name(key: u128) -> String {
    format!("{key:032x}")
}

/// The key of a line that has a beginning and an end.
fn key_of(line: &[u8]) -> Option<u128> {
    let hex = line.strip_prefix(b"{\"key\":\"")?.get(..32)?;
    let whole = line.ends_with(b"}}\n");
    u128::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok().filter(|_| whole)
}

/// Appends a line, after what a killed judge may have left without its end. Gives the line's offset.
fn append(file: &mut File, line: &[u8]) -> io::Result<u64> {
    // SAFETY: no memory is involved. The lock goes with the process, whatever ends it.
    unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX) };
    let outcome = (|| {
        let mut end = file.seek(SeekFrom::End(0))?;
        let mut last = [b'\n'];
        if end > 0 {
            file.read_exact_at(&mut last, end - 1)?;
        }
        if last != [b'\n'] {
            file.write_all(b"\n")?;
            end += 1;
        }
        file.write_all(line)?;
        Ok(end)
    })();
    // SAFETY: as above.
    unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_UN) };
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sheet::bare;
    use cognate_records::Status;

    #[test]
    fn what_was_put_is_found_again_and_torn_lines_cost_only_themselves() {
        let dir = tempfile::tempdir().unwrap();
        let verdict = |n| bare(Status::WA, Some(0.0), n, None);
        let mut results = Results::open(dir.path()).unwrap();
        for n in 0..3 {
            results.put(n.into(), &verdict(n)).unwrap();
        }
        assert_eq!(results.get(1), Some(verdict(1)));
        let path = dir.path().join("results.jsonl");
        let whole = std::fs::read(&path).unwrap();
        // A kill may cut the last line anywhere.
        for cut in 1..100 {
            std::fs::write(&path, &whole[..whole.len() - cut]).unwrap();
            let mut results = Results::open(&path).unwrap();
            assert_eq!(results.get(2), None, "cut by {cut}");
            results.put(9, &verdict(9)).unwrap();
            let again = Results::open(&path).unwrap();
            let found: Vec<_> = [0, 1, 9].map(|n| again.get(n)).to_vec();
            assert_eq!(found, [0, 1, 9].map(|n| Some(verdict(n as u32))), "cut by {cut}");
        }
        // A line damaged in its middle looks whole until it is read.
        let text = String::from_utf8(whole).unwrap().replacen("\"total\":1", "\"total\":x", 1);
        std::fs::write(&path, text).unwrap();
        let results = Results::open(&path).unwrap();
        assert_eq!([results.get(0).is_some(), results.get(1).is_some()], [true, false]);
    }

    #[test]
    fn two_judges_may_share_a_file() {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for worker in 0..4_u32 {
                let dir = dir.path();
                scope.spawn(move || {
                    let mut results = Results::open(dir).unwrap();
                    for n in 0..100 {
                        let total = worker * 100 + n;
                        results.put(total.into(), &bare(Status::AC, Some(1.0), total, None)).unwrap();
                    }
                });
            }
        });
        let results = Results::open(dir.path()).unwrap();
        assert_eq!(results.len(), 400);
        assert!((0..400_u32).all(|n| results.get(n.into()).unwrap().total == n));
    }
}
