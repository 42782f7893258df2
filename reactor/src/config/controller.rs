//! `--controller socket=PATH,ns=NAME[@NSID][,ns=NAME...][,key=value...]`

use std::path::PathBuf;

use nvme::pcie::controller::VECTORS_MAX;
use nvme::pcie::state::{DEPTH_MAX, QUEUES_MAX};
use nvme::subsystem::{MODEL_BYTES, NAMESPACES_MAX, NQN_BYTES, SERIAL_BYTES};
use serde::{Deserialize, Serialize};

use super::error::{ConfigError, config_error};
use super::grammar::{Fields, check_name, split};
use super::parse_mode;
use crate::cpu::CoreMask;

const QUEUES: u16 = 64;
const DEPTH: u16 = 1024;
const VECTORS: u16 = 64;
const MODEL: &str = "bellwire NVMe";
const KEYS: &str = "socket, ns, serial, model, nqn, queues, depth, vectors, intx, cores, mode, \
                    group, shared, dbbuf";

/// A controller.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ControllerConfig {
    /// Path of its socket.
    pub socket: PathBuf,
    /// Its namespaces, in the order of their identifiers.
    pub namespaces: Vec<NamespaceConfig>,
    /// Serial number; `None` = from the socket path.
    pub serial: Option<String>,
    /// Model number.
    pub model: String,
    /// Qualified name; `None` = from the socket path.
    pub nqn: Option<String>,
    /// I/O queue pairs.
    pub queues: u16,
    /// Entries of an I/O queue at most.
    pub depth: u16,
    /// MSI-X vectors.
    pub vectors: u16,
    /// Whether there is an interrupt pin.
    pub intx: bool,
    /// Cores that serve it; `None` = all that poll.
    pub cores: Option<CoreMask>,
    /// Permissions of its socket.
    pub mode: Option<u32>,
    /// Group of its socket.
    pub group: Option<String>,
    /// Whether its disks may be behind other controllers too.
    pub shared: bool,
    /// Shadow doorbells: always, never, or for clients that do not map doorbells.
    pub dbbuf: Option<bool>,
}

/// A namespace of a controller.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NamespaceConfig {
    /// Name of the disk.
    pub bdev: String,
    /// Namespace identifier.
    pub nsid: u32,
}

impl ControllerConfig {
    /// Reads the value of `--controller`.
    ///
    /// # Errors
    /// What is wrong with it, in a sentence.
    pub fn parse(text: &str) -> Result<ControllerConfig, ConfigError> {
        let mut fields = Fields::parse(text, &split(text), &["ns"])?;
        let config = ControllerConfig {
            socket: PathBuf::from(fields.need("socket")?),
            namespaces: namespaces(text, &mut fields)?,
            serial: fields.read("serial", |value| word(value, SERIAL_BYTES))?,
            model: fields
                .read("model", |value| self::text(value, MODEL_BYTES))?
                .unwrap_or_else(|| MODEL.to_owned()),
            nqn: fields.read("nqn", |value| word(value, NQN_BYTES))?,
            queues: fields.number("queues", 1, QUEUES_MAX)?.unwrap_or(QUEUES),
            depth: fields.number("depth", 2, DEPTH_MAX)?.unwrap_or(DEPTH),
            vectors: fields.number("vectors", 1, VECTORS_MAX)?.unwrap_or(VECTORS),
            intx: fields.switch("intx")?.unwrap_or(false),
            cores: fields.mask("cores")?,
            mode: fields.read("mode", parse_mode)?,
            group: fields.take("group"),
            shared: fields.switch("shared")?.unwrap_or(false),
            dbbuf: match fields.take("dbbuf").as_deref() {
                None | Some("auto") => None,
                Some("on") => Some(true),
                Some("off") => Some(false),
                Some(other) => {
                    return Err(config_error!(
                        "{text:?}: dbbuf: {other:?} is not on, off or auto"
                    ));
                }
            },
        };
        fields.finish(KEYS)?;
        Ok(config)
    }
}

/// Namespaces get 1, 2, .. in order unless they say `@NSID`.
fn namespaces(text: &str, fields: &mut Fields) -> Result<Vec<NamespaceConfig>, ConfigError> {
    let mut namespaces: Vec<NamespaceConfig> = Vec::new();
    while let Some(value) = fields.take("ns") {
        let (name, nsid) = match value.split_once('@') {
            None => (value.as_str(), namespaces.len() as u32 + 1),
            Some((name, nsid)) => (name, parse_nsid(text, nsid)?),
        };
        check_name(name).map_err(|error| config_error!("{text:?}: ns: {error}"))?;
        if namespaces.iter().any(|known| known.nsid == nsid) {
            return Err(config_error!(
                "{text:?}: two namespaces have the identifier {nsid}"
            ));
        }
        namespaces.push(NamespaceConfig {
            bdev: name.to_owned(),
            nsid,
        });
    }
    if namespaces.is_empty() {
        return Err(config_error!("{text:?}: ns= is missing"));
    }
    if namespaces.len() > NAMESPACES_MAX {
        let count = namespaces.len();
        return Err(config_error!(
            "{text:?}: {count} namespaces, {NAMESPACES_MAX} at most"
        ));
    }
    namespaces.sort_by_key(|namespace| namespace.nsid);
    Ok(namespaces)
}

fn parse_nsid(text: &str, nsid: &str) -> Result<u32, ConfigError> {
    let number = nsid
        .parse()
        .ok()
        .filter(|n| (1..=NAMESPACES_MAX as u32).contains(n));
    number.ok_or_else(|| {
        config_error!("{text:?}: ns: {nsid:?} is not an identifier from 1 to {NAMESPACES_MAX}")
    })
}

/// What a host can be told, without the spaces that a `ready` line could not hold.
fn word(value: &str, limit: usize) -> Result<String, ConfigError> {
    match value.contains(' ') {
        true => Err(config_error!("{value:?} has a space")),
        false => text(value, limit),
    }
}

/// What a host can be told: printable ASCII that its padding does not change.
fn text(value: &str, limit: usize) -> Result<String, ConfigError> {
    let printable = value.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    if value.len() > limit || value.trim() != value || !printable {
        return Err(config_error!(
            "{value:?} is not 1 to {limit} printable ASCII characters"
        ));
    }
    Ok(value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nsids(text: &str) -> Vec<(String, u32)> {
        let config = ControllerConfig::parse(text).unwrap();
        config
            .namespaces
            .into_iter()
            .map(|ns| (ns.bdev, ns.nsid))
            .collect()
    }

    #[test]
    fn namespaces_are_numbered_in_order_unless_they_say() {
        let expected = [("a".to_owned(), 1), ("b".to_owned(), 2)];
        assert_eq!(nsids("socket=/s,ns=a,ns=b"), expected);
        let expected = [("b".to_owned(), 1), ("a".to_owned(), 7)];
        assert_eq!(nsids("socket=/s,ns=a@7,ns=b@1"), expected);
    }

    #[test]
    fn every_key_is_read() {
        let text = "socket=/s,ns=a,serial=S1,model=My disk,nqn=nqn.x,queues=3,depth=8,vectors=5,\
                    intx=on,cores=[1,3],mode=0660,group=kvm,shared=on,dbbuf=off";
        let config = ControllerConfig::parse(text).unwrap();
        assert_eq!((config.queues, config.depth, config.vectors), (3, 8, 5));
        assert_eq!(
            (config.serial.as_deref(), config.model.as_str()),
            (Some("S1"), "My disk")
        );
        assert_eq!(config.cores.unwrap().to_string(), "[1,3]");
        assert_eq!(
            (config.mode, config.group.as_deref()),
            (Some(0o660), Some("kvm"))
        );
        assert_eq!(
            (config.intx, config.shared, config.dbbuf),
            (true, true, Some(false))
        );
    }

    #[test]
    fn defaults_are_as_documented() {
        let config = ControllerConfig::parse("socket=/s,ns=a").unwrap();
        assert_eq!(
            (config.queues, config.depth, config.vectors),
            (64, 1024, 64)
        );
        assert_eq!(
            (config.intx, config.shared, config.dbbuf),
            (false, false, None)
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases = [
            ("ns=a", "socket= is missing"),
            ("socket=/s", "ns= is missing"),
            ("socket=/s,ns=a,socket=/t", "socket is given twice"),
            ("socket=/s,ns=a@0", "is not an identifier from 1 to 64"),
            ("socket=/s,ns=a@65", "is not an identifier"),
            (
                "socket=/s,ns=a@2,ns=b",
                "two namespaces have the identifier 2",
            ),
            (
                "socket=/s,ns=a,queues=129",
                "\"129\" is not a number from 1 to 128",
            ),
            ("socket=/s,ns=a,queues=0", "queues: "),
            ("socket=/s,ns=a,depth=1", "is not a number from 2 to 4096"),
            (
                "socket=/s,ns=a,vectors=200",
                "is not a number from 1 to 128",
            ),
            (
                "socket=/s,ns=a,serial=123456789012345678901",
                "1 to 20 printable",
            ),
            ("socket=/s,ns=a,mode=9", "is not a mode"),
            ("socket=/s,ns=a,cores=5", "0x5 or [5]"),
            ("socket=/s,ns=a,color=red", "there is no key \"color\" here"),
            ("socket=/s,ns=a,dbbuf=maybe", "is not on, off or auto"),
        ];
        for (text, reason) in cases {
            let error = ControllerConfig::parse(text).unwrap_err();
            assert!(error.0.contains(reason), "{text}: {error}");
        }
    }
}
