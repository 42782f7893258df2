//! Which nodes (NUMA) memory is to be on: those of the reactors that use it.
//!
//! What a reactor makes on its own thread (rings, buffers, queues) is there by itself, since a page
//! comes from the node of the core that touches it first. The control thread makes the disks in
//! memory, doorbells and durable states, and asks for their nodes. What it makes besides, inboxes
//! and names, is small and stays in the caches of the cores that use it.

use std::path::Path;

use bdev::memory::{Nodes, SharedPages, is_chosen_by_starter};

use crate::config::{BdevKind, Config};
use crate::cpu::CoreMask;
use crate::host::Host;
use crate::numa;

/// The nodes of each controller's reactors, in the order of the configuration.
pub struct ControllerNodes {
    controllers: Vec<Nodes>,
    /// Whether it is ours to choose the nodes of memory.
    chooses: bool,
}

impl ControllerNodes {
    /// As the machine tells. Where it has one node none is named, and nothing is chosen: nor is it
    /// where whoever started us has chosen (`numactl`).
    pub fn of_machine(config: &Config, mask: &CoreMask) -> ControllerNodes {
        let nodes = ControllerNodes::of_host(&Host::new(Path::new("/")), config, mask);
        let is_chosen = nodes.chooses && is_chosen_by_starter();
        if is_chosen {
            tracing::info!("memory comes from the nodes that this process was started with");
        }
        ControllerNodes {
            chooses: nodes.chooses && !is_chosen,
            ..nodes
        }
    }

    fn of_host(host: &Host, config: &Config, mask: &CoreMask) -> ControllerNodes {
        let chooses = numa::has_several(host);
        let controllers = config.controllers.iter().map(|controller| {
            let cores = controller.cores.as_ref().unwrap_or(mask);
            let known = chooses.then(|| numa::of_cores(host, cores)).flatten();
            known.unwrap_or_default()
        });
        ControllerNodes {
            controllers: controllers.collect(),
            chooses,
        }
    }

    /// Those of one controller; none on a machine with one.
    pub fn of_controller(&self, index: usize) -> Nodes {
        self.controllers[index]
    }

    /// Those that the memory of a disk is to be on; none where it does not matter.
    pub fn of_disk(&self, config: &Config, name: &str) -> Nodes {
        let all = self.controllers.iter().zip(&config.controllers);
        let users = all.filter(|(_, user)| user.namespaces.iter().any(|ns| ns.bdev == name));
        match self.chooses {
            true => users.flat_map(|(nodes, _)| nodes.iter()).collect(),
            false => Nodes::default(),
        }
    }

    /// Has the pages of a controller come from the node of its reactors. If there are several, each
    /// page that a queue has to itself comes from the node of the reactor that touches it first.
    pub fn draw_near(&self, index: usize, pages: &SharedPages) {
        let nodes = self.of_controller(index);
        if self.chooses && nodes.len() == 1 {
            if let Err(error) = pages.prefer(&nodes) {
                tracing::warn!("a controller's state is not on node {nodes}: {error}");
            }
        }
    }

    /// Says where reactors are on several nodes that had better be on one.
    pub fn warn(&self, config: &Config) {
        for complaint in self.complaints(config) {
            tracing::warn!("{complaint}");
        }
    }

    fn complaints(&self, config: &Config) -> Vec<String> {
        let mut complaints = Vec::new();
        for (controller, nodes) in config.controllers.iter().zip(&self.controllers) {
            if nodes.len() > 1 {
                let socket = controller.socket.display();
                complaints.push(format!(
                    "controller {socket}: its reactors are on nodes {nodes}, which makes them \
                     slower: give it cores= of one node"
                ));
            }
        }
        for bdev in &config.bdevs {
            let nodes = self.of_disk(config, &bdev.name);
            if nodes.len() > 1 && matches!(bdev.kind, BdevKind::Malloc { .. }) {
                complaints.push(format!(
                    "disk {}: its memory is spread over nodes {nodes}, where its reactors are",
                    bdev.name
                ));
            }
        }
        complaints
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{BdevConfig, ControllerConfig};
    use crate::idle::Idle;
    use crate::numa::tests::machine;

    /// Two nodes with two cores each; a controller on each, one on both, and one without cores of
    /// its own.
    const CONTROLLERS: [&str; 4] = [
        "socket=/a,ns=one,ns=files,cores=[0]",
        "socket=/b,ns=two,ns=shared,cores=[2-3],shared=on",
        "socket=/c,ns=shared,cores=[0],shared=on",
        "socket=/d,ns=wide",
    ];

    fn config() -> Config {
        let disks = [
            "malloc:one,size=1m",
            "malloc:two,size=1m",
            "malloc:shared,size=1m",
            "malloc:wide,size=1m",
            "malloc:idle,size=1m",
            "null:files",
        ];
        Config {
            mask: None,
            core_locks: false,
            bdevs: disks.map(|text| BdevConfig::parse(text).unwrap()).into(),
            controllers: CONTROLLERS
                .map(|text| ControllerConfig::parse(text).unwrap())
                .into(),
            socket_mode: 0o600,
            socket_group: None,
            idle: Idle::Spin,
            any_guest_memory: false,
            print_qemu: false,
        }
    }

    fn on(machine_nodes: &[&[usize]]) -> ControllerNodes {
        let (_root, host) = machine(machine_nodes);
        ControllerNodes::of_host(&host, &config(), &"[0-3]".parse().unwrap())
    }

    #[test]
    fn memory_goes_where_the_reactors_of_its_controllers_are() {
        let (nodes, config) = (on(&[&[0, 1], &[2, 3]]), config());
        let controllers: Vec<String> = (0..4)
            .map(|index| nodes.of_controller(index).to_string())
            .collect();
        assert_eq!(controllers, ["0", "1", "0", "0,1"]);
        let disks = ["one", "two", "shared", "wide", "idle", "files"];
        let disks = disks.map(|name| nodes.of_disk(&config, name).to_string());
        assert_eq!(disks, ["0", "1", "0,1", "0,1", "", "0"]);
        let complaints = nodes.complaints(&config);
        let subjects = complaints
            .iter()
            .map(|text| text.split(':').next().unwrap());
        let subjects: Vec<&str> = subjects.collect();
        assert_eq!(subjects, ["controller /d", "disk shared", "disk wide"]);
        assert!(complaints[0].contains("on nodes 0,1"), "{}", complaints[0]);
    }

    #[test]
    fn nothing_is_chosen_on_one_node_or_where_the_starter_has_chosen() {
        let config = config();
        for machine in [&[&[0, 1, 2, 3][..]][..], &[]] {
            let nodes = on(machine);
            assert!((0..4).all(|index| nodes.of_controller(index).is_empty()));
            assert!(nodes.of_disk(&config, "one").is_empty());
            assert!(nodes.complaints(&config).is_empty());
        }
        let started = ControllerNodes {
            chooses: false,
            ..on(&[&[0, 1], &[2, 3]])
        };
        assert!(started.of_disk(&config, "one").is_empty());
        assert_eq!(started.complaints(&config).len(), 1);
    }
}
