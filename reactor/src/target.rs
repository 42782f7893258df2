//! Builds everything that a configuration names, and places it on reactors. Nothing that others
//! can see happens before all of it is there.

mod disks;
mod identity;
mod nodes;

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Context, bail};
use bdev::memory::{MemoryPolicy, Nodes, Seal, SharedPages};
use bdev::{Bdev, IoLimits};
use nvme::namespace::Namespace;
use nvme::pcie::controller::{ControllerConfig as Shape, ControllerParts, DoorbellBuffer};
use nvme::pcie::doorbell::doorbell_file_bytes;
use nvme::pcie::message::GroupId;
use nvme::pcie::poll_group::GroupSeed;
use nvme::pcie::state::ControllerState;
use nvme::spec::Nsid;
use nvme::subsystem::{Names, Subsystem};

use self::disks::Disks;
use self::identity::Identity;
use self::nodes::ControllerNodes;
use crate::config::{Config, ControllerConfig};
use crate::control::{Control, FarMemory};
use crate::cpu::{self, CoreLocks, CoreMask};
use crate::endpoint::EndpointSeed;
use crate::listener::{BoundSocket, Permissions};
use crate::logging::Logs;
use crate::message::{ControllerId, Inbox, Place, Post, ReactorId};
use crate::reactor::{self, ReactorSeed};
use crate::signal::Stop;

/// Most bytes of one transfer (MDTS).
const TRANSFER_BYTES_MAX: u32 = 1 << 20;

/// Everything, running, but not to be seen yet.
pub struct Target {
    control: Control,
    identities: Vec<Identity>,
    print_qemu: bool,
    _locks: Option<CoreLocks>,
}

/// What is made of one controller before the reactors are there.
struct Prepared {
    identity: Identity,
    socket: BoundSocket,
    parts: ControllerParts,
    reactors: Vec<ReactorId>,
    nodes: Nodes,
}

impl Target {
    /// Opens, binds, locks and starts everything, with reactors on the cores of `mask`.
    ///
    /// # Errors
    /// The first thing that cannot be; what was made until then is gone again.
    pub fn build(config: &Config, mask: &CoreMask) -> anyhow::Result<Target> {
        config.check()?;
        let locks = config
            .core_locks
            .then(|| CoreLocks::take(mask))
            .transpose()?;
        raise_descriptor_limit();
        let identities = identity::all(config)?;
        let mut sockets = Vec::new();
        for (controller, identity) in config.controllers.iter().zip(&identities) {
            sockets.push(BoundSocket::bind(
                &identity.socket,
                &permissions(config, controller),
            )?);
        }
        let nodes = ControllerNodes::of_machine(config, mask);
        nodes.warn(config);
        let disks = Disks::open(&config.bdevs, |name| nodes.of_disk(config, name))?;
        let subsystems = subsystems(config, &identities, &disks)?;
        let mut prepared = Vec::new();
        for (index, (socket, identity)) in sockets.into_iter().zip(identities).enumerate() {
            let controller = &config.controllers[index];
            let reactors = reactors_of(mask, controller)?;
            let subsystem = Arc::clone(&subsystems[&identity.nqn]);
            let cntlid = prepared
                .iter()
                .filter(|p: &&Prepared| p.identity.nqn == identity.nqn);
            let shape = shape(controller, cntlid.count() as u16 + 1, reactors.len() as u16);
            let parts = parts(shape, subsystem)
                .with_context(|| format!("controller {}", identity.socket.display()))?;
            for pages in [&parts.doorbells, parts.state.pages()] {
                nodes.draw_near(index, pages);
            }
            prepared.push(Prepared {
                identity,
                socket,
                parts,
                reactors,
                nodes: nodes.of_controller(index),
            });
        }
        Target::start(config, mask, prepared, disks, locks)
    }

    fn start(
        config: &Config,
        mask: &CoreMask,
        mut prepared: Vec<Prepared>,
        disks: Disks,
        locks: Option<CoreLocks>,
    ) -> anyhow::Result<Target> {
        let cores: Vec<usize> = mask.cores().collect();
        let places = place(&prepared);
        let post = Post {
            reactors: cores.iter().map(|_| Inbox::new()).collect(),
            control: Inbox::new(),
            control_thread: std::thread::current(),
            places: Arc::new(places),
        };
        let policy = match config.any_guest_memory {
            true => MemoryPolicy::AnyFile,
            false => MemoryPolicy::SharedOnly,
        };
        let mut control = Control::new(post.clone(), policy);
        let worker_cores: Vec<_> = cpu::allowed()?.outside(mask).collect();
        for (n, &core) in cores.iter().enumerate() {
            let (endpoints, groups) = share(ReactorId(n), &mut prepared, &post)?;
            let seed = ReactorSeed {
                id: ReactorId(n),
                core,
                endpoints,
                groups,
                limits: IoLimits::default(),
                worker_cores: worker_cores.clone(),
                idle: config.idle,
                post: post.clone(),
            };
            let thread = std::thread::Builder::new().name(format!("reactor{core}"));
            let thread = thread.spawn(move || reactor::run(seed));
            control
                .threads
                .push(thread.context("cannot start a reactor's thread")?);
        }
        control.wait_until_running()?;
        let mut identities = Vec::new();
        for controller in prepared {
            let socket = controller.identity.socket.display().to_string();
            let memory = FarMemory::new(socket, controller.nodes);
            control.far_memory.push(memory);
            identities.push(controller.identity);
            control.sockets.push(controller.socket);
        }
        for socket in &mut control.sockets {
            socket.publish()?;
        }
        control.bdevs = disks.keep();
        let print_qemu = config.print_qemu;
        Ok(Target {
            control,
            identities,
            print_qemu,
            _locks: locks,
        })
    }

    /// Says that everything is ready, and serves until somebody asks for a stop.
    ///
    /// # Errors
    /// A reactor ended by itself, or the stop was not clean.
    pub fn run(mut self, logs: &Logs, stop: &Stop) -> anyhow::Result<()> {
        for identity in &self.identities {
            identity.print(self.print_qemu);
        }
        let served = self.control.serve(stop);
        let stopped = self.control.stop();
        logs.drain();
        served.and(stopped)
    }
}

fn permissions(config: &Config, controller: &ControllerConfig) -> Permissions {
    Permissions {
        mode: controller.mode.unwrap_or(config.socket_mode),
        group: controller
            .group
            .clone()
            .or_else(|| config.socket_group.clone()),
    }
}

/// One subsystem for each name.
fn subsystems(
    config: &Config,
    identities: &[Identity],
    disks: &Disks,
) -> anyhow::Result<HashMap<String, Arc<Subsystem>>> {
    let mut subsystems = HashMap::new();
    for (controller, identity) in config.controllers.iter().zip(identities) {
        if subsystems.contains_key(&identity.nqn) {
            continue;
        }
        let controllers = identities
            .iter()
            .filter(|other| other.nqn == identity.nqn)
            .count();
        let names = Names {
            nqn: identity.nqn.clone(),
            serial: identity.serial.clone(),
            model: controller.model.clone(),
        };
        let namespaces = controller.namespaces.iter().map(|ns| {
            let bdev: Arc<dyn Bdev> = disks.get(&ns.bdev)?;
            Ok(Arc::new(Namespace::new(
                Nsid(ns.nsid),
                bdev,
                controller.shared,
            )))
        });
        let namespaces = namespaces.collect::<anyhow::Result<Vec<_>>>()?;
        let subsystem = Subsystem::new(names, controllers as u16, namespaces)
            .with_context(|| format!("controller {}", identity.socket.display()))?;
        subsystems.insert(identity.nqn.clone(), Arc::new(subsystem));
    }
    Ok(subsystems)
}

/// The reactors that serve a controller.
fn reactors_of(mask: &CoreMask, controller: &ControllerConfig) -> anyhow::Result<Vec<ReactorId>> {
    let cores = controller.cores.as_ref().unwrap_or(mask);
    if let Some(core) = cores.outside(mask).next() {
        let socket = controller.socket.display();
        bail!("controller {socket}: core {core} of cores={cores} does not poll, only {mask} do");
    }
    let chosen = mask
        .cores()
        .enumerate()
        .filter(|(_, core)| cores.cores().any(|c| c == *core));
    Ok(chosen.map(|(n, _)| ReactorId(n)).collect())
}

fn shape(controller: &ControllerConfig, cntlid: u16, groups: u16) -> Shape {
    Shape {
        cntlid,
        queues: controller.queues,
        depth: controller.depth,
        vectors: controller.vectors,
        intx: controller.intx,
        transfer_bytes_max: TRANSFER_BYTES_MAX,
        doorbell_buffer: match controller.dbbuf {
            None => DoorbellBuffer::Auto,
            Some(true) => DoorbellBuffer::On,
            Some(false) => DoorbellBuffer::Off,
        },
        groups,
    }
}

fn parts(config: Shape, subsystem: Arc<Subsystem>) -> anyhow::Result<ControllerParts> {
    let bytes = doorbell_file_bytes(config.queues);
    let doorbells = SharedPages::new("bellwire-doorbells", bytes, Seal::Doorbells)
        .context("doorbells cannot be made")?;
    let state = ControllerState::new(config.queues, config.depth)?;
    Ok(ControllerParts {
        config,
        subsystem,
        state,
        doorbells,
    })
}

/// Endpoints go to the reactors of their controllers in turn, to the one with the fewest.
fn place(prepared: &[Prepared]) -> Vec<Place> {
    let mut places: Vec<Place> = Vec::new();
    for controller in prepared {
        let load = |id: &&ReactorId| places.iter().filter(|place| place.home == **id).count();
        let home = controller.reactors.iter().min_by_key(load).copied();
        let groups = controller.reactors.clone();
        places.push(Place {
            home: home.unwrap_or(ReactorId(0)),
            groups,
        });
    }
    places
}

/// What a reactor serves: the endpoints whose home it is, and a poll group of each controller.
type Share = (Vec<EndpointSeed>, Vec<(ControllerId, GroupSeed)>);

fn share(id: ReactorId, prepared: &mut [Prepared], post: &Post) -> anyhow::Result<Share> {
    let (mut endpoints, mut groups) = (Vec::new(), Vec::new());
    for (n, controller) in prepared.iter_mut().enumerate() {
        let (number, place) = (ControllerId(n), &post.places[n]);
        for (group, _) in (0..)
            .zip(&place.groups)
            .filter(|(_, reactor)| **reactor == id)
        {
            groups.push((number, controller.parts.seed(GroupId(group))));
        }
        if place.home == id {
            endpoints.push(EndpointSeed {
                id: number,
                name: controller.identity.socket.display().to_string(),
                parts: controller.parts.clone(),
                listener: controller
                    .socket
                    .take_listener()
                    .context("a socket is served once")?,
            });
        }
    }
    Ok((endpoints, groups))
}

/// Each client brings descriptors for its memory and interrupts; the default soft limit of 1024
/// would be few.
fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        if soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_err() {
            tracing::warn!(soft, hard, "the limit of open files cannot be raised");
        }
    }
}
