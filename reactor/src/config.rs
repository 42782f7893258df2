//! The configuration of the daemon: one serialisable [`Config`], which the command line makes, and
//! the rules that hold between its parts.

mod bdev;
mod controller;
pub mod error;
mod grammar;

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

pub use self::bdev::{BdevConfig, BdevKind};
pub use self::controller::ControllerConfig;
pub use self::error::ConfigError;
use self::error::config_error;
use crate::cpu::CoreMask;
use crate::idle::Idle;

/// Everything that can be chosen.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Config {
    /// Cores that poll; `None` = the last allowed one.
    pub mask: Option<CoreMask>,
    /// Whether a core is locked against other processes that would poll on it.
    pub core_locks: bool,
    /// The disks.
    pub bdevs: Vec<BdevConfig>,
    /// The controllers.
    pub controllers: Vec<ControllerConfig>,
    /// Permissions of sockets whose controller does not say.
    pub socket_mode: u32,
    /// Group of sockets whose controller does not say.
    pub socket_group: Option<String>,
    /// What reactors do when nothing happens.
    pub idle: Idle,
    /// Whether guest memory may come from any file.
    pub any_guest_memory: bool,
    /// Whether arguments for VMMs are printed.
    pub print_qemu: bool,
}

impl Config {
    /// Checks what holds between the parts.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.controllers.is_empty() {
            return Err(config_error!(
                "nothing to serve: give at least one --controller"
            ));
        }
        let mut names = HashSet::new();
        for bdev in &self.bdevs {
            if !names.insert(bdev.name.as_str()) {
                return Err(config_error!("two --bdev have the name {}", bdev.name));
            }
        }
        let mut sockets = HashSet::new();
        for controller in &self.controllers {
            let socket = controller.socket.display();
            if !sockets.insert(&controller.socket) {
                return Err(config_error!("two --controller have the socket {socket}"));
            }
            for ns in &controller.namespaces {
                if !names.contains(ns.bdev.as_str()) {
                    let name = &ns.bdev;
                    return Err(config_error!(
                        "controller {socket}: there is no --bdev {name}"
                    ));
                }
            }
        }
        self.check_sharing()?;
        Ok(())
    }

    /// A disk behind two controllers is meant only if both say so.
    fn check_sharing(&self) -> Result<(), ConfigError> {
        let mut users: HashMap<&str, Vec<&ControllerConfig>> = HashMap::new();
        for controller in &self.controllers {
            let mut names: Vec<&str> = Vec::new();
            for ns in &controller.namespaces {
                if names.contains(&ns.bdev.as_str()) {
                    let (socket, name) = (controller.socket.display(), &ns.bdev);
                    return Err(config_error!(
                        "controller {socket}: bdev {name} is named twice"
                    ));
                }
                names.push(&ns.bdev);
                users.entry(&ns.bdev).or_default().push(controller);
            }
        }
        for bdev in &self.bdevs {
            let Some(users) = users.get(bdev.name.as_str()) else {
                continue;
            };
            let loner = users.iter().find(|user| !user.shared);
            if let (true, Some(loner)) = (users.len() > 1, loner) {
                return Err(config_error!(
                    "bdev {} is used by {} controllers, and controller {} does not say shared=on",
                    bdev.name,
                    users.len(),
                    loner.socket.display()
                ));
            }
        }
        Ok(())
    }
}

/// Reads permissions in octal.
///
/// # Errors
/// Anything but 0 to 0777.
pub fn parse_mode(text: &str) -> Result<u32, ConfigError> {
    let mode = u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o777);
    mode.ok_or_else(|| config_error!("{text:?} is not a mode: octal, 0 to 0777, as in 0660"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(bdevs: &[&str], controllers: &[&str]) -> Config {
        Config {
            mask: None,
            core_locks: true,
            bdevs: bdevs
                .iter()
                .map(|text| BdevConfig::parse(text).unwrap())
                .collect(),
            controllers: controllers
                .iter()
                .map(|text| ControllerConfig::parse(text).unwrap())
                .collect(),
            socket_mode: 0o600,
            socket_group: None,
            idle: Idle::Spin,
            any_guest_memory: false,
            print_qemu: false,
        }
    }

    fn refused(bdevs: &[&str], controllers: &[&str], reason: &str) {
        let error = config(bdevs, controllers).check().unwrap_err();
        assert!(error.0.contains(reason), "{error}");
    }

    #[test]
    fn parts_that_do_not_fit_are_refused_by_name() {
        refused(&[], &[], "at least one --controller");
        refused(
            &["null:a", "null:a"],
            &["socket=/s,ns=a"],
            "two --bdev have the name a",
        );
        refused(&["null:a"], &["socket=/s,ns=b"], "/s: there is no --bdev b");
        refused(
            &["null:a"],
            &["socket=/s,ns=a", "socket=/s,ns=a"],
            "socket /s",
        );
        refused(&["null:a"], &["socket=/s,ns=a,ns=a"], "named twice");
    }

    #[test]
    fn a_disk_is_shared_only_by_controllers_that_say_so() {
        let two = ["socket=/s,ns=a,shared=on", "socket=/t,ns=a"];
        refused(&["null:a"], &two, "controller /t does not say shared=on");
        let both = ["socket=/s,ns=a,shared=on", "socket=/t,ns=a,shared=on"];
        assert_eq!(config(&["null:a"], &both).check(), Ok(()));
    }

    #[test]
    fn a_configuration_is_data() {
        let config = config(&["malloc:a,size=1m"], &["socket=/s,ns=a,cores=[1-2]"]);
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<Config>(&text).unwrap(), config);
    }

    #[test]
    fn modes_are_octal() {
        assert_eq!(parse_mode("0660"), Ok(0o660));
        for text in ["", "8", "1000", "rw", "-1"] {
            assert!(parse_mode(text).is_err(), "{text}");
        }
    }
}
