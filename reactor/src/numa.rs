//! Which nodes (NUMA) of the machine its cores are on.

use bdev::memory::Nodes;

use crate::cpu::CoreMask;
use crate::host::Host;

const CPU: &str = "sys/devices/system/cpu";
const NODE: &str = "sys/devices/system/node";

/// Whether the machine has more than one, so that it matters.
pub fn has_several(host: &Host) -> bool {
    let names = host.names(NODE);
    names.iter().filter_map(|name| number(name)).count() > 1
}

/// Those of these cores; none if the machine does not tell of every core.
pub fn of_cores(host: &Host, cores: &CoreMask) -> Option<Nodes> {
    let of_core = |core: usize| {
        let names = host.names(&format!("{CPU}/cpu{core}"));
        names.iter().find_map(|name| number(name))
    };
    cores.cores().map(of_core).collect()
}

/// That of a folder: `node3`.
fn number(name: &str) -> Option<u32> {
    name.strip_prefix("node")?.parse().ok()
}

#[cfg(test)]
pub mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    /// A machine with these cores on node 0, 1, ...
    pub fn machine(nodes: &[&[usize]]) -> (TempDir, Host) {
        let root = tempfile::tempdir().unwrap();
        for name in ["has_cpu", "online", "possible"] {
            fs::create_dir_all(root.path().join(NODE).join(name)).unwrap();
        }
        for (node, cores) in nodes.iter().enumerate() {
            fs::create_dir_all(root.path().join(format!("{NODE}/node{node}"))).unwrap();
            for core in *cores {
                for name in [format!("node{node}"), "node_of".to_owned()] {
                    fs::create_dir_all(root.path().join(format!("{CPU}/cpu{core}/{name}")))
                        .unwrap();
                }
            }
        }
        let host = Host::new(root.path());
        (root, host)
    }

    #[test]
    fn cores_are_on_the_nodes_that_the_machine_tells() {
        let (_root, host) = machine(&[&[0, 2], &[1, 3], &[]]);
        assert!(has_several(&host));
        let cases = [
            ("[0]", Some("0")),
            ("[1,3]", Some("1")),
            ("[0-3]", Some("0,1")),
            // One core that nobody knows of, and nothing is known.
            ("[3,4]", None),
        ];
        for (cores, nodes) in cases {
            let found = of_cores(&host, &cores.parse().unwrap());
            assert_eq!(
                found.map(|found| found.to_string()).as_deref(),
                nodes,
                "{cores}"
            );
        }
    }

    #[test]
    fn a_machine_has_several_nodes_when_it_says_so() {
        let (_root, one) = machine(&[&[0, 1]]);
        assert!(!has_several(&one));
        assert_eq!(
            of_cores(&one, &CoreMask::of(1)),
            Some([0].into_iter().collect())
        );
        let (_root, silent) = machine(&[]);
        assert!(!has_several(&silent));
        assert_eq!(of_cores(&silent, &CoreMask::of(1)), None);
    }
}
