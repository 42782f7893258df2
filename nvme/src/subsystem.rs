//! NVM subsystems: what exists independent of how a host reaches it.

use std::sync::Arc;

use crate::namespace::Namespace;
use crate::spec::Nsid;

/// Most namespaces of one subsystem.
pub const NAMESPACES_MAX: usize = 64;
/// Most bytes of a serial number.
pub const SERIAL_BYTES: usize = 20;
/// Most bytes of a model number.
pub const MODEL_BYTES: usize = 40;
/// Most bytes of a qualified name (NVMe Base 2.0, 4.5).
pub const NQN_BYTES: usize = 223;
/// Firmware revision that every controller reports.
pub const FIRMWARE: &str = env!("CARGO_PKG_VERSION");

/// An NVM subsystem: a name, and namespaces.
#[derive(Debug)]
pub struct Subsystem {
    nqn: String,
    serial: String,
    model: String,
    controllers: u16,
    /// Namespace n at index n - 1.
    namespaces: Vec<Option<Arc<Namespace>>>,
}

/// Why there cannot be such a subsystem.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubsystemError {
    /// A text is empty, too long, or not printable ASCII.
    #[error("{what} {value:?} must be 1 to {limit} printable ASCII characters")]
    Text {
        /// Which text.
        what: &'static str,
        /// The text.
        value: String,
        /// Most bytes.
        limit: usize,
    },
    /// A namespace identifier is out of range.
    #[error("namespace identifier {0} is out of range (1-{NAMESPACES_MAX})")]
    NamespaceRange(u32),
    /// A namespace identifier is used twice.
    #[error("namespace identifier {0} is used twice")]
    NamespaceTwice(u32),
}

/// Texts by which hosts know a subsystem.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Names {
    /// NVMe qualified name.
    pub nqn: String,
    /// Serial number.
    pub serial: String,
    /// Model number.
    pub model: String,
}

impl Subsystem {
    /// A subsystem of `controllers` controllers with these namespaces.
    ///
    /// # Errors
    /// [`SubsystemError`] for a text or an identifier that no host could be told.
    pub fn new(
        names: Names,
        controllers: u16,
        namespaces: impl IntoIterator<Item = Arc<Namespace>>,
    ) -> Result<Subsystem, SubsystemError> {
        let Names { nqn, serial, model } = names;
        check_text("nqn", &nqn, NQN_BYTES)?;
        check_text("serial", &serial, SERIAL_BYTES)?;
        check_text("model", &model, MODEL_BYTES)?;
        let mut table: Vec<Option<Arc<Namespace>>> = Vec::new();
        for namespace in namespaces {
            let nsid = namespace.nsid().0;
            if nsid == 0 || nsid as usize > NAMESPACES_MAX {
                return Err(SubsystemError::NamespaceRange(nsid));
            }
            let index = nsid as usize - 1;
            table.resize(table.len().max(index + 1), None);
            if table[index].replace(namespace).is_some() {
                return Err(SubsystemError::NamespaceTwice(nsid));
            }
        }
        Ok(Subsystem {
            nqn,
            serial,
            model,
            controllers,
            namespaces: table,
        })
    }

    /// NVMe qualified name.
    pub fn nqn(&self) -> &str {
        &self.nqn
    }

    /// Serial number.
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// Model number.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Number of controllers.
    pub fn controllers(&self) -> u16 {
        self.controllers
    }

    /// All places for namespaces, namespace n at index n - 1; the last one is not empty.
    pub fn namespaces(&self) -> &[Option<Arc<Namespace>>] {
        &self.namespaces
    }

    /// The namespaces there are.
    pub fn active(&self) -> impl Iterator<Item = &Arc<Namespace>> {
        self.namespaces.iter().flatten()
    }

    /// A namespace by its identifier.
    pub fn namespace(&self, nsid: Nsid) -> Option<&Arc<Namespace>> {
        self.namespaces
            .get((nsid.0 as usize).wrapping_sub(1))?
            .as_ref()
    }
}

fn check_text(what: &'static str, value: &str, limit: usize) -> Result<(), SubsystemError> {
    let printable = value.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    if value.is_empty() || value.len() > limit || !printable {
        return Err(SubsystemError::Text {
            what,
            value: value.to_owned(),
            limit,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bdev::{Null, NullConfig};

    use super::*;

    fn names(nqn: &str, serial: &str, model: &str) -> Names {
        Names {
            nqn: nqn.into(),
            serial: serial.into(),
            model: model.into(),
        }
    }

    fn namespace(nsid: u32) -> Arc<Namespace> {
        let disk = Null::new(NullConfig {
            name: "disk".into(),
            uuid: None,
            blocks: 8,
            block_size: 512,
        });
        Arc::new(Namespace::new(Nsid(nsid), disk.unwrap(), false))
    }

    fn subsystem(nsids: &[u32]) -> Result<Subsystem, SubsystemError> {
        let namespaces = nsids.iter().map(|&nsid| namespace(nsid));
        Subsystem::new(names("nqn", "serial", "model"), 1, namespaces)
    }

    #[test]
    fn texts_that_a_host_could_not_be_told_are_refused() {
        let longest = names(&"n".repeat(223), &"s".repeat(20), &"m".repeat(40));
        assert!(Subsystem::new(longest, 1, []).is_ok());
        let bad = [
            names("", "s", "m"),
            names("nqn", "", "m"),
            names("nqn", "s", ""),
            names(&"n".repeat(224), "s", "m"),
            names("nqn", &"s".repeat(21), "m"),
            names("nqn", "s", &"m".repeat(41)),
            names("n\u{e9}", "s", "m"),
            names("nqn", "s\n", "m"),
            names("nqn", "s", "m\u{7f}"),
        ];
        for names in bad {
            let error = Subsystem::new(names, 1, []).unwrap_err();
            assert!(matches!(error, SubsystemError::Text { .. }), "{error}");
        }
    }

    #[test]
    fn namespaces_are_found_by_their_identifier() {
        let subsystem = subsystem(&[64, 2]).unwrap();
        assert_eq!(subsystem.namespaces().len(), 64);
        let active: Vec<u32> = subsystem.active().map(|ns| ns.nsid().0).collect();
        assert_eq!(active, [2, 64]);
        for nsid in [2, 64] {
            assert_eq!(subsystem.namespace(Nsid(nsid)).unwrap().nsid(), Nsid(nsid));
        }
        for nsid in [Nsid::NONE, Nsid(1), Nsid(63), Nsid(65), Nsid::ALL] {
            assert!(subsystem.namespace(nsid).is_none(), "{nsid:?}");
        }
    }

    #[test]
    fn identifiers_that_cannot_be_are_refused() {
        for (nsids, error) in [
            (&[0][..], SubsystemError::NamespaceRange(0)),
            (&[65], SubsystemError::NamespaceRange(65)),
            (&[u32::MAX], SubsystemError::NamespaceRange(u32::MAX)),
            (&[1, 2, 1], SubsystemError::NamespaceTwice(1)),
        ] {
            assert_eq!(subsystem(nsids).unwrap_err(), error);
        }
    }
}
