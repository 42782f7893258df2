//! What a virtual machine is made of, and QEMU's command line for it.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::stage::Stage;

/// What starts first in a machine.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Start {
    /// The guest image's kernel, given to the machine from outside.
    Kernel,
    /// SeaBIOS, from the disk.
    Bios,
    /// OVMF, from the disk.
    Uefi,
}

/// A machine of two processors and 1 GiB, to be given disks.
#[derive(Clone)]
pub(crate) struct Machine {
    start: Start,
    image: PathBuf,
    /// Those beyond the test bed's.
    kernel_arguments: String,
    disks: Vec<&'static str>,
    iommu: bool,
    has_slot: bool,
    has_two_nodes: bool,
}

impl Machine {
    /// A machine that starts the guest image's kernel.
    pub(crate) fn new() -> Machine {
        Machine {
            start: Start::Kernel,
            image: PathBuf::from("initramfs.cpio"),
            kernel_arguments: "bellwire=agent".to_owned(),
            disks: Vec::new(),
            iommu: false,
            has_slot: false,
            has_two_nodes: false,
        }
    }

    /// A machine whose BIOS (SeaBIOS) starts what is on its disk.
    pub(crate) fn bios() -> Machine {
        Machine {
            start: Start::Bios,
            ..Machine::new()
        }
    }

    /// A machine whose UEFI firmware (OVMF) starts what is on its disk.
    pub(crate) fn uefi() -> Machine {
        Machine {
            start: Start::Uefi,
            ..Machine::new()
        }
    }

    /// A machine with what it takes to make a disk bootable (`/etc/bellwire/install DISK`).
    pub(crate) fn installer() -> Machine {
        Machine {
            image: PathBuf::from("installer.cpio"),
            ..Machine::new()
        }
    }

    /// Has the kernel unpack this image, of the test bed or at a path of its own.
    pub(crate) fn image(mut self, image: PathBuf) -> Machine {
        self.image = image;
        self
    }

    /// Puts each processor on a node (NUMA) of its own, the second with a quarter of the memory. No
    /// disk can be attached then.
    pub(crate) fn two_nodes(mut self) -> Machine {
        self.has_two_nodes = true;
        self
    }

    /// Attaches the controller behind this socket in the test's folder.
    pub(crate) fn disk(mut self, socket: &'static str) -> Machine {
        self.disks.push(socket);
        self
    }

    /// Adds kernel arguments.
    pub(crate) fn kernel_arguments(mut self, arguments: &str) -> Machine {
        self.kernel_arguments.extend([" ", arguments]);
        self
    }

    /// Adds a slot, into which a disk can be plugged later.
    pub(crate) fn slot(mut self) -> Machine {
        self.has_slot = true;
        self
    }

    /// Puts an Intel IOMMU between the machine's devices and its memory.
    pub(crate) fn iommu(mut self) -> Machine {
        self.iommu = true;
        self.kernel_arguments("intel_iommu=on iommu.passthrough=0")
    }

    /// QEMU's arguments; its sockets and the console's log are put into the test's folder.
    pub(crate) fn qemu_arguments(&self, stage: &Stage, paths: &Paths) -> Vec<OsString> {
        let mut arguments = Arguments::default();
        arguments.add("-nodefaults -no-user-config -display none");
        arguments.add(if stage.has_kvm() {
            "-accel kvm -cpu host"
        } else {
            "-accel tcg,thread=multi -cpu max"
        });
        if self.has_two_nodes {
            // Cores of one socket are on one node.
            arguments.add("-machine q35 -m 1G -smp 2,sockets=2");
            for (node, size) in [(0, "768M"), (1, "256M")] {
                arguments.add(&format!(
                    "-object memory-backend-ram,id=memory{node},size={size} \
                     -numa node,nodeid={node},cpus={node},memdev=memory{node}"
                ));
            }
        } else {
            arguments.add("-machine q35,memory-backend=memory -smp 2");
            arguments.add("-object memory-backend-memfd,id=memory,size=1G,share=on");
        }
        arguments.option("-serial", "file:", &paths.console);
        arguments.add("-chardev");
        arguments.path("socket,id=agent,server=on,wait=off,path=", &paths.agent);
        arguments.add("-serial chardev:agent");
        arguments.option("-qmp", "unix:", &paths.qmp);
        arguments.append(",server=on,wait=off");
        if self.has_slot {
            arguments.add("-device pcie-root-port,id=plug,chassis=1");
        }
        if self.iommu {
            arguments.add("-device intel-iommu,caching-mode=on,intremap=off");
        }
        for socket in &self.disks {
            arguments.add("-device");
            arguments
                .0
                .push(disk_device(stage, socket).to_string().into());
        }
        self.add_start(stage, &mut arguments);
        arguments.0
    }

    fn add_start(&self, stage: &Stage, arguments: &mut Arguments) {
        match self.start {
            Start::Kernel => {
                arguments.option("-kernel", "", &stage.testbed("vmlinux"));
                arguments.option("-initrd", "", &stage.testbed(&self.image));
                let common = fs::read_to_string(stage.testbed("kernel_arguments"));
                let common = common.expect("kernel_arguments in the test bed: run ./scripts/test");
                let all = format!("{} {}", common.trim(), self.kernel_arguments);
                arguments.add("-append");
                arguments.0.push(all.into());
            }
            Start::Bios => {}
            Start::Uefi => {
                let variables = stage.dir().join("uefi-variables.fd");
                fs::copy(stage.testbed("OVMF_VARS_4M.fd"), &variables)
                    .expect("a copy of the firmware's variables");
                let code = stage.testbed("OVMF_CODE_4M.fd");
                arguments.option("-drive", "if=pflash,format=raw,readonly=on,file=", &code);
                arguments.option("-drive", "if=pflash,format=raw,file=", &variables);
            }
        }
    }
}

/// The device that is the controller behind this socket, in QEMU's words.
pub(crate) fn disk_device(stage: &Stage, socket: &str) -> Value {
    let socket = json!({ "type": "unix", "path": stage.dir().join(socket) });
    json!({ "driver": "vfio-user-pci", "socket": socket })
}

/// Where a running machine can be reached.
pub(crate) struct Paths {
    /// What the guest's kernel prints.
    pub(crate) console: PathBuf,
    /// The socket of the guest's agent.
    pub(crate) agent: PathBuf,
    /// The socket of QEMU's control.
    pub(crate) qmp: PathBuf,
}

#[derive(Default)]
struct Arguments(Vec<OsString>);

impl Arguments {
    /// Adds plain words.
    fn add(&mut self, words: &str) {
        self.0.extend(words.split_whitespace().map(OsString::from));
    }

    fn option(&mut self, name: &str, prefix: &str, path: &Path) {
        self.add(name);
        self.path(prefix, path);
    }

    /// Adds one argument that ends in a path.
    fn path(&mut self, prefix: &str, path: &Path) {
        let mut argument = OsString::from(prefix);
        argument.push(path);
        self.0.push(argument);
    }

    /// Adds to the last argument.
    fn append(&mut self, text: &str) {
        if let Some(last) = self.0.last_mut() {
            last.push(text);
        }
    }
}
