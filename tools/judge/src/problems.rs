//! Problems by id, read from disk when they are asked for: memory holds an offset a problem, and the last few used.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use cognate_languages::Languages;
use cognate_records::{Checker, Error, Format, Lines, Problem, Reader, Result, detect_format};

/// Problems kept in memory.
const KEPT: usize = 512;

#[derive(Debug, Clone, Copy)]
struct Place {
    file: u32,
    offset: u64,
    length: u32,
    line: u32,
}

/// The last few problems used, with their order.
type Kept = (HashMap<String, Arc<Problem>>, VecDeque<String>);

/// All problems of some files.
pub struct Problems {
    files: Vec<(PathBuf, File)>,
    places: HashMap<String, Place>,
    kept: Mutex<Kept>,
}

/// Languages of the problem's checker programs.
pub fn checker_languages(problem: &Problem) -> impl Iterator<Item = &str> {
    let checkers = problem.tests.iter().map(|t| t.checker.as_ref()).chain([problem.checker.as_ref()]);
    checkers.filter_map(|checker| match checker {
        Some(Checker::Program { language, .. }) => Some(language.as_str()),
        _ => None,
    })
}

impl Problems {
    /// Reads every problem once, to find and check it. Parquet is copied to an unnamed temporary file, because one row
    /// cannot be read from it alone.
    ///
    /// # Errors
    /// With `file:line` at the first bad problem; two problems with one id are bad.
    pub fn open(paths: &[PathBuf], languages: &Languages) -> Result<Self> {
        let mut problems = Self { files: Vec::new(), places: HashMap::new(), kept: Mutex::default() };
        for path in paths {
            if detect_format(path)? == Format::Parquet {
                problems.spool(path, languages)?;
            } else {
                problems.index(path, languages)?;
            }
        }
        Ok(problems)
    }

    fn index(&mut self, path: &Path, languages: &Languages) -> Result<()> {
        let file = File::open(path).map_err(|e| Error::io(path, e))?;
        if !file.metadata().map_err(|e| Error::io(path, e))?.is_file() {
            return Err(Error::data(
                path.display().to_string(),
                "tests are read at random and need a plain file",
            ));
        }
        let mut input = BufReader::with_capacity(1 << 18, file.try_clone().map_err(|e| Error::io(path, e))?);
        let number = self.files.len() as u32;
        let (mut offset, mut line) = (0, 0);
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            let read = input.read_until(b'\n', &mut bytes).map_err(|e| Error::io(path, e))?;
            if read == 0 {
                break;
            }
            line += 1;
            if !bytes.iter().all(u8::is_ascii_whitespace) {
                let problem = decode(path, line, &bytes)?;
                let place = Place { file: number, offset, length: read as u32, line };
                self.insert(path, line, problem, place, languages)?;
            }
            offset += read as u64;
        }
        self.files.push((path.to_path_buf(), file));
        Ok(())
    }

    fn insert(
        &mut self,
        path: &Path,
        line: u32,
        problem: Problem,
        place: Place,
        languages: &Languages,
    ) -> Result<()> {
        let at = || format!("{}:{line}", path.display());
        if let Some(name) = checker_languages(&problem).find(|name| languages.by_spelling(name).is_none()) {
            let reason = format!("problem {:?}: unknown language {name:?} of a checker", problem.id);
            return Err(Error::data(at(), reason));
        }
        match self.places.insert(problem.id.clone(), place) {
            None => Ok(()),
            Some(_) => Err(Error::data(at(), format!("problem {:?} appears twice", problem.id))),
        }
    }

    fn spool(&mut self, path: &Path, languages: &Languages) -> Result<()> {
        let mut file = unnamed().map_err(|e| Error::io(path, e))?;
        let number = self.files.len() as u32;
        for (row, problem) in Reader::<Problem>::open(path)?.enumerate() {
            let problem = problem?;
            let mut text = serde_json::to_vec(&problem)
                .map_err(|e| Error::data(path.display().to_string(), e.to_string()))?;
            text.push(b'\n');
            let offset = file.seek(SeekFrom::End(0)).map_err(|e| Error::io(path, e))?;
            file.write_all(&text).map_err(|e| Error::io(path, e))?;
            let line = row as u32 + 1;
            self.insert(
                path,
                line,
                problem,
                Place { file: number, offset, length: text.len() as u32, line },
                languages,
            )?;
        }
        self.files.push((path.to_path_buf(), file));
        Ok(())
    }

    /// The problem, or `None` where there is none of that id.
    ///
    /// # Errors
    /// When the file has changed since it was indexed.
    pub fn get(&self, id: &str) -> Result<Option<Arc<Problem>>> {
        let mut kept = self.kept.lock().expect("no thread panics while it holds this");
        if let Some(problem) = kept.0.get(id) {
            return Ok(Some(problem.clone()));
        }
        let Some(place) = self.places.get(id) else { return Ok(None) };
        let (path, file) = &self.files[place.file as usize];
        let mut bytes = vec![0; place.length as usize];
        file.read_exact_at(&mut bytes, place.offset).map_err(|e| Error::io(path, e))?;
        let problem = Arc::new(decode(path, place.line, &bytes)?);
        if problem.id != id {
            return Err(Error::data(path.display().to_string(), "the file changed while it was in use"));
        }
        if kept.1.len() >= KEPT
            && let Some(oldest) = kept.1.pop_front()
        {
            kept.0.remove(&oldest);
        }
        kept.0.insert(id.to_owned(), problem.clone());
        kept.1.push_back(id.to_owned());
        Ok(Some(problem))
    }
}

/// Decodes through [`Lines`], so that messages are the same as everywhere.
fn decode(path: &Path, line: u32, bytes: &[u8]) -> Result<Problem> {
    let mut lines = Lines::new("", std::io::Cursor::new(bytes.to_vec()));
    match lines.next().map(|line| line.and_then(|l| l.decode::<Problem>())) {
        Some(Ok(problem)) => Ok(problem),
        Some(Err(Error::Data { reason, .. })) => {
            Err(Error::data(format!("{}:{line}", path.display()), reason))
        }
        Some(Err(e)) => Err(e),
        None => Err(Error::data(format!("{}:{line}", path.display()), "empty line")),
    }
}

fn unnamed() -> std::io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options()
        .read(true)
        .write(true)
        .custom_flags(libc::O_TMPFILE)
        .mode(0o600)
        .open(std::env::temp_dir())
}
