//! An unnamed temporary file of JSON texts. Selection needs to see every program before it can choose; the programs
//! wait here, and memory holds only where.

use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use cognate_records::Error;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Where a text stands.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    offset: u64,
    length: u32,
}

pub struct Spill {
    file: BufWriter<File>,
    /// For messages: the folder that the file lies in.
    folder: PathBuf,
    end: u64,
}

impl Spill {
    /// Lies beside `output`, which has room by intent, or in the system's folder for temporaries. It has no name: it
    /// goes away with the process, however that ends.
    ///
    /// # Errors
    /// When the file cannot be created.
    pub fn beside(output: &Path) -> Result<Self, Error> {
        let parent = output.parent().filter(|p| !p.as_os_str().is_empty() && p.is_dir());
        let folder = match parent {
            Some(folder) if output.as_os_str() != "-" => folder.to_path_buf(),
            _ => std::env::temp_dir(),
        };
        let file = tempfile::tempfile_in(&folder).map_err(|e| Error::io(&folder, e))?;
        Ok(Self { file: BufWriter::with_capacity(1 << 16, file), folder, end: 0 })
    }

    /// # Errors
    /// When the disk is full.
    pub fn push<T: Serialize>(&mut self, record: &T) -> Result<Place, Error> {
        let text = serde_json::to_vec(record).map_err(|e| Error::io(&self.folder, e.into()))?;
        self.file.write_all(&text).map_err(|e| Error::io(&self.folder, e))?;
        let place = Place { offset: self.end, length: text.len() as u32 };
        self.end += text.len() as u64;
        Ok(place)
    }

    /// # Errors
    /// When the file cannot be read back.
    pub fn get<T: DeserializeOwned>(&mut self, place: Place) -> Result<T, Error> {
        let mut read = || {
            self.file.flush()?;
            let file = self.file.get_mut();
            file.seek(SeekFrom::Start(place.offset))?;
            let mut bytes = vec![0; place.length as usize];
            file.read_exact(&mut bytes)?;
            serde_json::from_slice(&bytes).map_err(Into::into)
        };
        read().map_err(|e: std::io::Error| Error::io(&self.folder, e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_back_in_any_order() {
        let mut spill = Spill::beside(Path::new("-")).unwrap();
        let places: Vec<_> = (0..100u32).map(|i| spill.push(&vec![i; i as usize]).unwrap()).collect();
        for i in [99u32, 0, 50, 1] {
            assert_eq!(spill.get::<Vec<u32>>(places[i as usize]).unwrap(), vec![i; i as usize]);
        }
    }
}
