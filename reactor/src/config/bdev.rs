//! `--bdev KIND:NAME[,key=value...]`

use std::path::PathBuf;

use bdev::size::parse_size;
use bdev::{BLOCK_BYTES_MAX, BLOCK_BYTES_MIN, Geometry};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::error::{ConfigError, config_error};
use super::grammar::{Fields, check_name, split};

/// Size of a null disk that does not say.
const NULL_SIZE: u64 = 1 << 40;
/// Block size of a disk that does not say.
const BLOCK_SIZE: u32 = BLOCK_BYTES_MIN;

/// A disk.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BdevConfig {
    /// Its name.
    pub name: String,
    /// Its identity, if it is not to follow from its name.
    pub uuid: Option<Uuid>,
    /// Bytes of a logical block.
    pub block_size: u32,
    /// What it is.
    pub kind: BdevKind,
}

/// What a disk is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum BdevKind {
    /// Nothing is stored.
    Null {
        /// Bytes.
        size: u64,
    },
    /// Memory of the process.
    Malloc {
        /// Bytes.
        size: u64,
    },
    /// A file or block device.
    File {
        /// Where it is.
        path: PathBuf,
        /// Bytes; a missing file is created with them.
        size: Option<u64>,
        /// Whether it is never written.
        read_only: bool,
        /// Whether it bypasses the page cache; `None` = if it can.
        direct: Option<bool>,
    },
}

impl BdevConfig {
    /// Reads the value of `--bdev`.
    ///
    /// # Errors
    /// What is wrong with it, in a sentence.
    pub fn parse(text: &str) -> Result<BdevConfig, ConfigError> {
        let parts = split(text);
        let (head, rest) = parts
            .split_first()
            .ok_or_else(|| config_error!("--bdev is empty"))?;
        let Some((kind, name)) = head.split_once(':') else {
            return Err(config_error!("{text:?}: {head:?} is not KIND:NAME"));
        };
        check_name(name).map_err(|error| config_error!("{text:?}: {error}"))?;
        let mut fields = Fields::parse(text, rest, &[])?;
        let uuid = fields.read("uuid", Uuid::parse_str)?;
        let block_size = fields
            .read("block", parse_block_size)?
            .unwrap_or(BLOCK_SIZE);
        let (kind, known) = match kind {
            "null" => {
                let size = fields.size("size")?.unwrap_or(NULL_SIZE);
                (BdevKind::Null { size }, "size, block, uuid")
            }
            "malloc" => {
                let size = fields.size("size")?;
                let size = size.ok_or_else(|| config_error!("{text:?}: size= is missing"))?;
                (BdevKind::Malloc { size }, "size, block, uuid")
            }
            "file" => (
                file(&mut fields)?,
                "path, size, block, readonly, direct, uuid",
            ),
            _ => {
                return Err(config_error!(
                    "{text:?}: {kind:?} is not a kind of disk; kinds are null, malloc and file"
                ));
            }
        };
        fields.finish(known)?;
        let config = BdevConfig {
            name: name.to_owned(),
            uuid,
            block_size,
            kind,
        };
        config.check_size(text)?;
        Ok(config)
    }

    fn check_size(&self, text: &str) -> Result<(), ConfigError> {
        let size = match self.kind {
            BdevKind::Null { size } | BdevKind::Malloc { size } => size,
            // That of a file which is there is known once it is opened: now only blocks count.
            BdevKind::File { size, .. } => size.unwrap_or(BLOCK_BYTES_MAX.into()),
        };
        Geometry::for_size(&self.name, size, self.block_size)
            .map(drop)
            .map_err(|error| config_error!("{text:?}: {error}"))
    }
}

fn file(fields: &mut Fields) -> Result<BdevKind, ConfigError> {
    Ok(BdevKind::File {
        path: PathBuf::from(fields.need("path")?),
        size: fields.size("size")?,
        read_only: fields.switch("readonly")?.unwrap_or(false),
        direct: fields.switch("direct")?,
    })
}

/// Bytes, whether a block can have so many or not.
fn parse_block_size(text: &str) -> Result<u32, ConfigError> {
    let size = parse_size(text).map_err(|error| config_error!("{error}"))?;
    u32::try_from(size).map_err(|_| config_error!("{text:?} is not a block size"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_read() {
        let null = BdevConfig::parse("null:n").unwrap();
        assert_eq!((null.name.as_str(), null.block_size), ("n", 512));
        assert_eq!(null.kind, BdevKind::Null { size: 1 << 40 });
        let malloc = BdevConfig::parse("malloc:m,size=64MiB,block=4k").unwrap();
        assert_eq!(
            (malloc.kind, malloc.block_size),
            (BdevKind::Malloc { size: 64 << 20 }, 4096)
        );
        let file = BdevConfig::parse("file:f,path=/a,,b=c:d,readonly=on,direct=off").unwrap();
        let path = PathBuf::from("/a,b=c:d");
        let kind = BdevKind::File {
            path,
            size: None,
            read_only: true,
            direct: Some(false),
        };
        assert_eq!(file.kind, kind);
        let uuid = BdevConfig::parse("null:n,uuid=00112233-4455-6677-8899-aabbccddeeff").unwrap();
        assert_eq!(uuid.uuid.unwrap().as_bytes()[1], 0x11);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases = [
            ("null", "is not KIND:NAME"),
            ("floppy:a", "kinds are null, malloc and file"),
            ("null:a b", "is not a name"),
            ("malloc:a", "size= is missing"),
            ("malloc:a,size=1000", "multiple of the block size of 512"),
            ("malloc:a,size=0", "a size of 0 bytes is not possible"),
            (
                "null:a,size=8388608t",
                "a size of 9223372036854775808 bytes",
            ),
            ("file:a,path=/x,size=6k,block=4k", "multiple of the block"),
            ("malloc:a,size=1m,size=1m", "size is given twice"),
            ("malloc:a,size=1q", "is not a size"),
            (
                "malloc:a,size=1m,block=1000",
                "a power of two from 512 to 4096",
            ),
            ("malloc:a,size=1m,block=8k", "a block of 8192 bytes"),
            ("file:a,path=/x,block=256", "a block of 256 bytes"),
            ("null:a,block=4g", "\"4g\" is not a block size"),
            (
                "null:a,path=/x",
                "there is no key \"path\" here; keys are size, block, uuid",
            ),
            ("file:a", "path= is missing"),
            (
                "file:a,path=/x,readonly=yes",
                "\"yes\" is neither on nor off",
            ),
            ("null:a,uuid=1", "uuid: "),
            ("null:a,junk", "\"junk\" is not key=value"),
            ("null:a,size=", "size has no value"),
        ];
        for (text, reason) in cases {
            let error = BdevConfig::parse(text).unwrap_err();
            assert!(error.0.contains(reason), "{text}: {error}");
            assert!(error.0.contains(text), "{error}");
        }
    }
}
