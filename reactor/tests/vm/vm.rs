//! A running virtual machine: commands in its guest, resets, and what its kernel complained about.

use std::fs;
use std::io;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::agent::{Agent, Output};
use crate::machine::{Machine, Paths, disk_device};
use crate::process::{Process, tail, wait_for};
use crate::qmp::Qmp;
use crate::stage::Stage;

const CONNECT_LIMIT: Duration = Duration::from_secs(20);
const BOOT_LIMIT: Duration = Duration::from_secs(120);
const COMMAND_LIMIT: Duration = Duration::from_secs(180);
const POWER_OFF_LIMIT: Duration = Duration::from_secs(60);

/// What the guest's kernel says, in any case of letters, when a disk has let it down.
const COMPLAINTS: [&str; 13] = [
    "timeout,",
    "completion polled",
    "abort",
    "i/o error",
    "controller is down",
    "device not ready",
    "removing after probe failure",
    "failed to set",
    "ext4-fs error",
    "xfs: corruption",
    "blocked for more than",
    "bug:",
    "warning:",
];

/// A virtual machine whose guest is up. It is killed when this is dropped.
pub(crate) struct Vm {
    agent: Agent,
    qmp: Qmp,
    process: Process,
    paths: Paths,
    loads: u32,
    forgiven: Vec<&'static str>,
}

/// What goes on in the guest while commands are run.
#[must_use = "a load that nobody stops is not checked"]
pub(crate) struct Load(u32);

impl Vm {
    /// Starts a machine and waits until its guest is up.
    #[track_caller]
    pub(crate) fn boot(stage: &Stage, machine: &Machine) -> Vm {
        let paths = Paths {
            console: stage.dir().join("console.log"),
            agent: stage.dir().join("agent.sock"),
            qmp: stage.dir().join("qmp.sock"),
        };
        // Those of a machine that this test had before.
        for path in [&paths.console, &paths.agent, &paths.qmp] {
            let _ = fs::remove_file(path);
        }
        let arguments = machine.qemu_arguments(stage, &paths);
        let mut process = Process::start("qemu", stage.dir(), &stage.testbed("qemu"), arguments);
        let agent = connect(&mut process, || Agent::connect(&paths.agent));
        let qmp = connect(&mut process, || Qmp::connect(&paths.qmp));
        let mut vm = Vm {
            agent,
            qmp,
            process,
            paths,
            loads: 0,
            forgiven: Vec::new(),
        };
        vm.wait_until_up();
        vm
    }

    /// Runs a shell script in the guest; returns what it prints, without blanks at the ends.
    /// Panics if it fails.
    #[track_caller]
    pub(crate) fn run(&mut self, script: &str) -> String {
        let Output { status, text } = self.try_run(script);
        assert!(
            status == 0,
            "in the guest, `{script}` ended with {status}:\n{text}"
        );
        text.trim().to_owned()
    }

    /// Runs a shell script in the guest, whatever it comes to.
    #[track_caller]
    pub(crate) fn try_run(&mut self, script: &str) -> Output {
        let started = Instant::now();
        let result = self.agent.run(script, COMMAND_LIMIT);
        // Shown when the test fails.
        eprintln!("{:6.2} s  {script}", started.elapsed().as_secs_f32());
        result.unwrap_or_else(|error| panic!("in the guest, `{script}`: {error}"))
    }

    /// Starts a shell script in the guest that is run again and again, beside others, until it
    /// fails or is stopped.
    #[track_caller]
    pub(crate) fn start(&mut self, script: &str) -> Load {
        self.loads += 1;
        let name = format!("/tmp/load-{}", self.loads);
        self.run(&format!(
            "cat >{name} <<'END'\nuntil [ -e {name}.stop ]; do\n{script} || exit\ndone\nEND\n\
             {{ sh {name} >{name}.output 2>&1; echo $? >{name}.status; }} >/dev/null 2>&1 &"
        ));
        Load(self.loads)
    }

    /// Has what was started come to its end; panics if it failed before.
    #[track_caller]
    pub(crate) fn stop(&mut self, load: Load) {
        let Output { status, text } = self.finish(load);
        assert!(
            status == 0,
            "in the guest, what went on ended with {status}:\n{text}"
        );
    }

    /// Has what was started come to its end, whatever that is.
    #[track_caller]
    pub(crate) fn finish(&mut self, Load(number): Load) -> Output {
        let name = format!("/tmp/load-{number}");
        self.try_run(&format!(
            "touch {name}.stop; until [ -s {name}.status ]; do sleep 0.1; done\n\
             cat {name}.output; exit $(cat {name}.status)"
        ))
    }

    /// Lets the guest's kernel say this, where the test makes it say it.
    pub(crate) fn forgive(&mut self, complaint: &'static str) {
        self.forgiven.push(complaint);
    }

    /// Panics if the guest's kernel has complained about its disks.
    #[track_caller]
    pub(crate) fn check_log(&mut self) {
        let log = self.run("dmesg");
        let complaints = complaints(&log, &self.forgiven);
        assert!(
            complaints.is_empty(),
            "the guest's kernel said:\n{}",
            complaints.join("\n")
        );
    }

    /// Has the guest reboot, by its own doing.
    #[track_caller]
    pub(crate) fn reboot(&mut self) {
        self.check_log();
        self.agent
            .send("sync; reboot -f")
            .expect("a guest that listens");
        self.wait_until_up();
    }

    /// Presses the machine's reset button: the guest is not asked.
    #[track_caller]
    pub(crate) fn system_reset(&mut self) {
        self.check_log();
        self.qmp
            .execute("system_reset", &json!({}))
            .expect("QEMU resets the machine");
        self.wait_until_up();
    }

    /// Plugs a disk into the slot of the running machine.
    #[track_caller]
    pub(crate) fn plug(&mut self, stage: &Stage, socket: &str) {
        let mut device = disk_device(stage, socket);
        device["bus"] = json!("plug");
        self.qmp
            .execute("device_add", &device)
            .expect("QEMU adds the device");
    }

    /// Kills QEMU, as a crash would.
    #[track_caller]
    pub(crate) fn kill(mut self) {
        self.check_log();
        self.process.signal("KILL");
        self.process.wait(POWER_OFF_LIMIT);
    }

    /// Has the guest power the machine off, and QEMU end.
    #[track_caller]
    pub(crate) fn power_off(mut self) {
        self.check_log();
        self.agent
            .send("sync; poweroff -f")
            .expect("a guest that listens");
        let status = self.process.wait(POWER_OFF_LIMIT);
        assert!(status.success(), "QEMU ended with {status}");
    }

    #[track_caller]
    fn wait_until_up(&mut self) {
        let result = self.agent.wait_until_ready(BOOT_LIMIT);
        result.unwrap_or_else(|error| panic!("the guest does not come up: {error}"));
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let console = fs::read_to_string(&self.paths.console).unwrap_or_default();
            eprintln!("--- the guest's console said:\n{}", tail(&console));
        }
    }
}

/// The lines of a kernel's log that tell of trouble with disks, but for those forgiven.
fn complaints<'a>(log: &'a str, forgiven: &[&str]) -> Vec<&'a str> {
    let complains = |line: &&str| {
        let lower = line.to_lowercase();
        COMPLAINTS.iter().any(|complaint| lower.contains(complaint))
    };
    let is_forgiven = |line: &&str| forgiven.iter().any(|part| line.contains(part));
    log.lines()
        .filter(complains)
        .filter(|line| !is_forgiven(line))
        .collect()
}

/// Connects to a socket that QEMU makes as it starts.
#[track_caller]
fn connect<T>(process: &mut Process, connect: impl Fn() -> io::Result<T>) -> T {
    let connected = wait_for(CONNECT_LIMIT, || {
        let ended = process.status();
        assert!(
            ended.is_none(),
            "QEMU ended: {ended:?}\n{}",
            process.stderr()
        );
        connect().ok()
    });
    connected.unwrap_or_else(|| panic!("QEMU made no socket within {CONNECT_LIMIT:?}"))
}

#[test]
fn what_a_kernel_says_of_a_disk_that_failed_it_is_a_complaint() {
    for line in [
        "nvme nvme0: I/O tag 12 (100c) opcode 0x2 (I/O Cmd) QID 1 timeout, aborting req_op:READ",
        "nvme nvme0: I/O tag 3 (0003) QID 2 timeout, completion polled",
        "nvme nvme0: Abort status: 0x0",
        "nvme0n1: I/O Cmd(0x1) @ LBA 8, 8 blocks, I/O Error (sct 0x2 / sc 0x80) MORE DNR",
        "I/O error, dev nvme0n1, sector 2048 op 0x0:(READ) flags 0x80700 phys_seg 1 prio class 2",
        "nvme nvme0: controller is down; will reset: CSTS=0x3, PCI_STATUS=0x10",
        "nvme nvme0: Device not ready; aborting reset, CSTS=0x0",
    ] {
        assert_eq!(complaints(line, &[]), [line]);
    }
}

#[test]
fn a_quiet_boot_and_what_is_forgiven_are_no_complaints() {
    let quiet = "nvme nvme0: pci function 0000:00:01.0\n\
                 nvme nvme0: Shutdown timeout set to 10 seconds\n\
                 nvme nvme0: 2/0/0 default/read/poll queues";
    assert!(complaints(quiet, &[]).is_empty());
    let expected = "I/O error, dev nvme0n1, sector 0";
    assert!(complaints(expected, &["I/O error"]).is_empty());
}
