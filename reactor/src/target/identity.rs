//! Who a controller is: its names follow from the path of its socket unless they are given, and
//! from nothing else.

use std::path::PathBuf;

use anyhow::bail;
use uuid::Uuid;

use crate::config::{Config, ControllerConfig};
use crate::listener::resolve;

/// Namespace of the UUIDs that follow from socket paths. It must never change: guests know their
/// controllers by what follows from it.
const UUID_NAMESPACE: Uuid = Uuid::from_u128(0x3f0e_52a1_7c38_4d6b_a9c4_8e16_5b0d_71f2);

/// The names of one controller.
pub struct Identity {
    /// Path of its socket, without links.
    pub socket: PathBuf,
    /// Serial number.
    pub serial: String,
    /// Qualified name of its subsystem.
    pub nqn: String,
}

/// The identity of every controller.
///
/// # Errors
/// A socket path that cannot be, or that two controllers mean, or controllers of one subsystem that
/// differ in what hosts expect to be the same.
pub fn all(config: &Config) -> anyhow::Result<Vec<Identity>> {
    let mut identities: Vec<Identity> = Vec::new();
    for (index, controller) in config.controllers.iter().enumerate() {
        let identity = Identity::of(controller)?;
        for (other, earlier) in identities.iter().zip(&config.controllers[..index]) {
            let (a, b) = (other.socket.display(), identity.socket.display());
            if other.socket == identity.socket {
                bail!("two --controller have the socket {a}");
            }
            if other.nqn != identity.nqn {
                continue;
            }
            let differs = if other.serial != identity.serial {
                "serial"
            } else if earlier.model != controller.model {
                "model"
            } else if earlier.namespaces != controller.namespaces {
                "ns"
            } else {
                continue;
            };
            let nqn = &identity.nqn;
            bail!("controllers {a} and {b} have the nqn {nqn}, so their {differs} must be equal");
        }
        identities.push(identity);
    }
    Ok(identities)
}

impl Identity {
    fn of(controller: &ControllerConfig) -> anyhow::Result<Identity> {
        let socket = resolve(&controller.socket)?;
        let derived = Uuid::new_v5(&UUID_NAMESPACE, socket.as_os_str().as_encoded_bytes());
        let nqn = controller.nqn.clone();
        // Controllers of one named subsystem have one serial number.
        let of_name = nqn
            .as_ref()
            .map(|nqn| Uuid::new_v5(&UUID_NAMESPACE, nqn.as_bytes()));
        let serial = controller.serial.clone().unwrap_or_else(|| {
            let hex = of_name.unwrap_or(derived).simple().to_string();
            format!("BW{}", &hex[..18]).to_uppercase()
        });
        let nqn = nqn.unwrap_or_else(|| format!("nqn.2014-08.org.nvmexpress:uuid:{derived}"));
        Ok(Identity {
            socket,
            serial,
            nqn,
        })
    }

    /// Says that the controller is ready, and how to attach it.
    pub fn print(&self, print_qemu: bool) {
        use std::io::Write;

        let socket = self.socket.display();
        let mut out = std::io::stdout().lock();
        // Whoever started us may not listen.
        let _ = writeln!(
            out,
            "ready socket={socket} serial={} nqn={}",
            self.serial, self.nqn
        );
        if print_qemu {
            let address = serde_json::json!({"type": "unix", "path": self.socket});
            let device = serde_json::json!({"driver": "vfio-user-pci", "socket": address});
            let quoted = device.to_string().replace('\'', r"'\''");
            let _ = writeln!(out, "-device '{quoted}'");
        }
        let _ = out.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(text: &str) -> Identity {
        Identity::of(&ControllerConfig::parse(text).unwrap()).unwrap()
    }

    #[test]
    fn names_follow_from_the_path_alone() {
        let a = identity("socket=/tmp/a.sock,ns=x");
        let again = identity("ns=y,depth=4,socket=/tmp/../tmp/a.sock");
        assert_eq!((&a.serial, &a.nqn), (&again.serial, &again.nqn));
        let b = identity("socket=/tmp/b.sock,ns=x");
        assert_ne!(a.serial, b.serial);
        assert_ne!(a.nqn, b.nqn);
        assert_eq!(a.serial.len(), 20);
    }

    /// Guests have seen these; they may not change with a new version.
    #[test]
    fn names_are_those_of_every_version() {
        let a = identity("socket=/a.sock,ns=x");
        assert_eq!(a.serial, "BWF6CCA485843C5B1BB7");
        assert_eq!(
            a.nqn,
            "nqn.2014-08.org.nvmexpress:uuid:f6cca485-843c-5b1b-b709-70e1bb749024"
        );
    }

    #[test]
    fn controllers_of_one_subsystem_agree_also_when_its_name_was_derived() {
        let refused = |a: &str, b: &str| {
            let controllers = [a, b].map(|text| ControllerConfig::parse(text).unwrap());
            let config = Config {
                mask: None,
                core_locks: true,
                bdevs: Vec::new(),
                controllers: controllers.to_vec(),
                socket_mode: 0o600,
                socket_group: None,
                idle: crate::idle::Idle::Spin,
                any_guest_memory: false,
                print_qemu: false,
            };
            all(&config).err().map(|error| error.to_string())
        };
        let a = "socket=/tmp/a.sock,ns=a";
        let derived = identity(a).nqn;
        let (named, serial) = (format!("{a},nqn=n"), identity(a).serial);
        let cases = [
            (
                named.as_str(),
                "socket=/tmp/b.sock,ns=a@2,nqn=n",
                "their ns must",
            ),
            (
                &named,
                "socket=/tmp/b.sock,ns=a,nqn=n,serial=1",
                "their serial must",
            ),
            (
                &named,
                "socket=/tmp/b.sock,ns=a,nqn=n,model=m",
                "their model must",
            ),
            (&named, "socket=/tmp/../tmp/a.sock,ns=b", "two --controller"),
            (
                a,
                &format!("socket=/tmp/b.sock,ns=a,nqn={derived}"),
                "their serial must",
            ),
            (
                a,
                &format!("socket=/tmp/b.sock,ns=b,nqn={derived},serial={serial}"),
                "their ns must",
            ),
        ];
        for (a, b, reason) in cases {
            let error = refused(a, b).unwrap_or_default();
            assert!(error.contains(reason), "{a} {b}: {error}");
        }
        assert_eq!(refused(&named, "socket=/tmp/b.sock,ns=a,nqn=n"), None);
    }

    #[test]
    fn controllers_of_one_subsystem_have_one_serial() {
        let a = identity("socket=/tmp/a.sock,ns=x,nqn=nqn.one");
        let b = identity("socket=/tmp/b.sock,ns=x,nqn=nqn.one");
        assert_eq!(a.serial, b.serial);
    }
}
