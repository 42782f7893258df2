//! Names that a guest knows its disks by.

use nvme::spec::Nsid;
use nvme::spec::identify::{IdentifyController, IdentifyNamespace, cns};

use crate::daemon::Daemon;
use crate::host::Host;
use crate::stage::Stage;

/// A controller as a guest sees it.
#[derive(Clone, PartialEq, Debug)]
struct Identity {
    serial: String,
    model: String,
    nqn: String,
    cntlid: u16,
    namespaces: Vec<Namespace>,
}

/// A namespace: its identifier, its size in blocks, and its names.
#[derive(Clone, PartialEq, Debug)]
struct Namespace {
    nsid: u32,
    blocks: u64,
    nguid: [u8; 16],
    uuid: [u8; 16],
}

fn text(bytes: &[u8]) -> String {
    let text = String::from_utf8(bytes.to_vec()).expect("text");
    text.trim_end_matches([' ', '\0']).to_owned()
}

fn identity(stage: &Stage, socket: &str) -> Identity {
    let mut host = Host::connect(&stage.path(socket));
    let controller: IdentifyController = host.identify(cns::CONTROLLER, Nsid::NONE);
    let list: [u32; 1024] = host.identify(cns::ACTIVE_NAMESPACES, Nsid::NONE);
    let active = list.into_iter().take_while(|nsid| *nsid != 0);
    let namespaces = active.map(|nsid| {
        let namespace: IdentifyNamespace = host.identify(cns::NAMESPACE, Nsid(nsid));
        let descriptors: [u8; 4096] = host.identify(cns::NAMESPACE_DESCRIPTORS, Nsid(nsid));
        Namespace {
            nsid,
            blocks: namespace.nsze.get(),
            nguid: namespace.nguid,
            uuid: descriptor(&descriptors, 3),
        }
    });
    Identity {
        namespaces: namespaces.collect(),
        serial: text(&controller.sn),
        model: text(&controller.mn),
        nqn: text(&controller.subnqn),
        cntlid: controller.cntlid.get(),
    }
}

/// A descriptor of 16 bytes from the list that Identify gives (NVMe Base 2.0, 5.17.2.3).
fn descriptor(list: &[u8], kind: u8) -> [u8; 16] {
    let mut rest = list;
    loop {
        let (head, value) = rest.split_at(4);
        let length = usize::from(head[1]);
        assert_ne!(length, 0, "there is no descriptor {kind}");
        if head[0] == kind {
            return value[..length].try_into().expect("16 bytes");
        }
        rest = &value[length..];
    }
}

#[test]
fn names_depend_on_neither_restarts_nor_the_order_of_arguments() {
    let stage = Stage::new();
    let disks = [
        "--bdev malloc:m,size=1m",
        "--bdev file:f,path=DIR/image,size=2m",
        "--bdev null:n,size=4m",
        "--bdev null:given,uuid=00112233-4455-6677-8899-aabbccddeeff",
    ];
    let controllers = [
        "--controller socket=DIR/a.sock,ns=m,ns=f",
        "--controller queues=2,ns=n,ns=given,socket=DIR/b.sock",
    ];
    let serve = |disks: Vec<&str>, controllers: Vec<&str>, image: &str| {
        let arguments = format!("{} {}", disks.join(" "), controllers.join(" "));
        let daemon = Daemon::serve(&stage, &arguments.replace("DIR/image", image));
        let seen = ["a.sock", "b.sock"].map(|socket| identity(&stage, socket));
        daemon.stop();
        seen
    };
    let first = serve(disks.to_vec(), controllers.to_vec(), "DIR/image");
    let reversed = |list: &[&'static str]| list.iter().rev().copied().collect::<Vec<_>>();
    // Nor on how the path of an image is written.
    let again = serve(reversed(&disks), reversed(&controllers), "DIR/./image");
    assert_eq!(first, again);

    let [a, b] = &first;
    assert_ne!(a.serial, b.serial);
    assert_ne!(a.nqn, b.nqn);
    let names: Vec<_> = first.iter().flat_map(|seen| &seen.namespaces).collect();
    for (n, one) in names.iter().enumerate() {
        assert_eq!(one.nguid, one.uuid, "one identity, said twice");
        assert_ne!(one.uuid, [0; 16]);
        assert!(names[..n].iter().all(|other| other.uuid != one.uuid));
    }
    let given = [0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99];
    assert_eq!(b.namespaces[1].uuid[..10], given);
}

#[test]
fn what_ready_lines_say_is_what_a_guest_sees() {
    let stage = Stage::new();
    let daemon = Daemon::serve(
        &stage,
        "--bdev null:a --bdev null:b --controller socket=DIR/a.sock,ns=a \
         --controller socket=DIR/b.sock,ns=b,serial=MINE,nqn=nqn.mine,model=Plain",
    );
    let said = daemon.stdout();
    for (line, socket) in said.lines().zip(["a.sock", "b.sock"]) {
        let seen = identity(&stage, socket);
        let ends = format!(" serial={} nqn={}", seen.serial, seen.nqn);
        assert!(line.ends_with(&ends), "{line}: {seen:?}");
    }
    let b = identity(&stage, "b.sock");
    assert_eq!((b.serial.as_str(), b.nqn.as_str()), ("MINE", "nqn.mine"));
    assert_eq!(b.model, "Plain");
    daemon.stop();
}

#[test]
fn namespaces_have_the_identifiers_of_their_order_or_those_they_ask_for() {
    let stage = Stage::new();
    let daemon = Daemon::serve(
        &stage,
        "--bdev null:a,size=1m --bdev null:b,size=2m --bdev null:c,size=3m --bdev null:d,size=4m \
         --controller socket=DIR/plain.sock,ns=d,ns=c \
         --controller socket=DIR/asked.sock,ns=b@64,ns=a@7",
    );
    let seen = |socket| -> Vec<(u32, u64)> {
        let namespaces = identity(&stage, socket).namespaces;
        let size = |ns: &Namespace| (ns.nsid, ns.blocks * 512 >> 20);
        namespaces.iter().map(size).collect()
    };
    assert_eq!(seen("plain.sock"), [(1, 4), (2, 3)]);
    assert_eq!(seen("asked.sock"), [(7, 1), (64, 2)]);
    daemon.stop();
}

#[test]
fn controllers_of_one_subsystem_show_the_same_disk() {
    let stage = Stage::new();
    let daemon = Daemon::serve(
        &stage,
        "--bdev malloc:a,size=1m --controller socket=DIR/a.sock,ns=a,nqn=nqn.one,shared=on \
         --controller socket=DIR/b.sock,ns=a,nqn=nqn.one,shared=on",
    );
    let (a, b) = (identity(&stage, "a.sock"), identity(&stage, "b.sock"));
    assert_ne!(a.cntlid, b.cntlid);
    assert_eq!(
        Identity {
            cntlid: b.cntlid,
            ..a
        },
        b
    );
    Host::connect(&stage.path("a.sock")).write_pages(64, 9);
    Host::connect(&stage.path("b.sock")).check_pages(64, 9);
    daemon.stop();
}
