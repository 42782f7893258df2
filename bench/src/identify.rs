//! `bellwire-bench identify`: what a controller says of itself, as text or JSON.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use nvme::spec::Nsid;
use nvme::spec::identify::{IdentifyController, IdentifyNamespace, Vwc};
use nvme::spec::registers::Vs;
use serde::Serialize;
use uuid::Uuid;

use crate::driver::Controller;
use crate::job_options::seconds;
use crate::report::Count;
use crate::workload::Error;

#[derive(Debug, Args)]
pub(crate) struct IdentifyOptions {
    /// The target's vfio-user socket, or a folder that holds it as `cntrl`
    #[arg(value_name = "SOCKET")]
    pub(crate) target: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// How long the target may take for an answer
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub(crate) timeout: Duration,
}

/// What is shown, with the specification's names in the JSON.
#[derive(Debug, Serialize)]
struct Identity {
    sn: String,
    mn: String,
    fr: String,
    subnqn: String,
    ver: String,
    cntlid: u16,
    mdts: u8,
    /// Bytes that a command can move; 0: no limit.
    transfer_max: u64,
    nn: u32,
    vwc: bool,
    /// Entries of a queue.
    mqes: u32,
    doorbells_mapped: bool,
    namespaces: Vec<Namespace>,
}

#[derive(Debug, Serialize)]
struct Namespace {
    nsid: u32,
    nsze: u64,
    ncap: u64,
    nuse: u64,
    block_size: u64,
    metadata_size: u16,
    nguid: String,
    uuid: Option<Uuid>,
}

/// Connects, asks, prints.
pub(crate) fn run(options: &IdentifyOptions) -> Result<(), Error> {
    let mut controller = Controller::connect(&options.target, options.timeout)?;
    let identity = Identity::ask(&mut controller)?;
    controller.shut_down()?;
    let text = if options.json {
        let json = serde_json::to_string_pretty(&identity).map_err(io::Error::from)?;
        json + "\n"
    } else {
        identity.text()
    };
    Ok(io::stdout().lock().write_all(text.as_bytes())?)
}

impl Identity {
    fn ask(controller: &mut Controller) -> Result<Identity, Error> {
        let identity: IdentifyController = controller.identify()?;
        let mut namespaces = Vec::new();
        for nsid in controller.namespaces()? {
            let namespace = controller.identify_namespace(nsid)?;
            // Not every controller has the list of descriptors: NVMe 1.3 brought it.
            let uuid = controller.namespace_uuid(nsid).unwrap_or(None);
            namespaces.push(Namespace::new(nsid, &namespace, uuid.map(Uuid::from_bytes)));
        }
        Ok(Identity {
            sn: ascii(&identity.sn),
            mn: ascii(&identity.mn),
            fr: ascii(&identity.fr),
            subnqn: ascii(&identity.subnqn),
            ver: version(controller.version()?),
            cntlid: identity.cntlid.get(),
            mdts: identity.mdts,
            transfer_max: controller.transfer_max(&identity).unwrap_or(0),
            nn: identity.nn.get(),
            vwc: Vwc::from(identity.vwc).present(),
            mqes: controller.entries_max(),
            doorbells_mapped: controller.doorbells_mapped(),
            namespaces,
        })
    }

    fn text(&self) -> String {
        let transfer = match self.transfer_max {
            0 => "not limited".to_owned(),
            bytes => format!("{bytes} bytes"),
        };
        let doorbells = if self.doorbells_mapped {
            "mapped"
        } else {
            "by message"
        };
        let rows = [
            ("model", self.mn.clone()),
            ("serial", self.sn.clone()),
            ("firmware", self.fr.clone()),
            ("NQN", self.subnqn.clone()),
            ("controller", self.cntlid.to_string()),
            ("NVMe", self.ver.clone()),
            ("transfer", transfer),
            ("queue entries", self.mqes.to_string()),
            ("write cache", yes_or_no(self.vwc)),
            ("doorbells", doorbells.to_owned()),
        ];
        let mut text = String::new();
        for (name, value) in rows {
            text += &format!("{name:<14} {value}\n");
        }
        for namespace in &self.namespaces {
            text += &namespace.line();
        }
        text
    }
}

impl Namespace {
    fn new(nsid: Nsid, identity: &IdentifyNamespace, uuid: Option<Uuid>) -> Namespace {
        let format = identity.formatted();
        Namespace {
            nsid: nsid.0,
            nsze: identity.nsze.get(),
            ncap: identity.ncap.get(),
            nuse: identity.nuse.get(),
            block_size: 1u64.checked_shl(format.lbads.into()).unwrap_or(0),
            metadata_size: format.ms.get(),
            nguid: Uuid::from_bytes(identity.nguid).simple().to_string(),
            uuid,
        }
    }

    fn line(&self) -> String {
        let bytes = self.nsze.saturating_mul(self.block_size);
        let uuid = match self.uuid {
            Some(uuid) => format!(", UUID {uuid}"),
            None => String::new(),
        };
        format!(
            "namespace {:<4} {}B ({bytes} bytes), {} blocks of {}{uuid}\n",
            self.nsid,
            Count(bytes as f64),
            self.nsze,
            self.block_size,
        )
    }
}

fn yes_or_no(yes: bool) -> String {
    if yes { "yes" } else { "no" }.to_owned()
}

/// A field of ASCII that is padded with blanks, or ends at a zero byte. What is no printable
/// character is replaced: it goes to a terminal.
fn ascii(field: &[u8]) -> String {
    let text = field.split(|byte| *byte == 0).next().unwrap_or_default();
    let printable = |byte: &u8| match byte {
        b' '..=b'~' => char::from(*byte),
        _ => '?',
    };
    let text: String = text.iter().map(printable).collect();
    text.trim_end().to_owned()
}

fn version(version: Vs) -> String {
    let (major, minor, tertiary) = (version.major(), version.minor(), version.tertiary());
    format!("{major}.{minor}.{tertiary}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_lose_their_padding_and_control_characters() {
        assert_eq!(ascii(b"bellwire    "), "bellwire");
        assert_eq!(ascii(b"nqn.2014\0\0\0 junk"), "nqn.2014");
        assert_eq!(ascii(b"a\x1b[2Jb\xff"), "a?[2Jb?");
        assert_eq!(ascii(b""), "");
    }
}
