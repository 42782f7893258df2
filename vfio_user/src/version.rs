//! `VFIO_USER_VERSION`: what the two sides agree on before anything else.

use nix::errno::Errno;
use serde::{Deserialize, Serialize};
use zerocopy::IntoBytes;

use crate::frame::FDS_PER_MESSAGE;
use crate::protocol::{self, VersionPayload};

/// The protocol version spoken here. Minor versions differ only in what may be added.
pub const MAJOR: u16 = 0;
/// The newest minor version; an older one is spoken with who asks for it.
pub const MINOR: u16 = 1;
/// `max_data_xfer_size` of a side that names none, in bytes.
pub const DATA_TRANSFER_DEFAULT: u32 = 1 << 20;
/// `max_msg_fds` of a side that names none.
const FDS_DEFAULT: u32 = 1;
/// Longest JSON that is looked at, in bytes.
pub const JSON_MAX: usize = 4 << 10;
/// The one page size that DMA ranges have to be aligned to, as a set of sizes.
const PAGE_SIZES: u64 = 4 << 10;

/// What one side can take, as far as the other has to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Descriptors in one message.
    pub fds_max: u32,
    /// Bytes in one data transfer.
    pub data_max: u32,
}

/// The version data: `{"capabilities": {...}}`. Keys that are not known are passed over.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct VersionData {
    capabilities: Capabilities,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Capabilities {
    #[serde(skip_serializing_if = "Option::is_none")]
    max_msg_fds: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_data_xfer_size: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pgsizes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_dma_maps: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    write_multiple: Option<bool>,
}

/// What this side offers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offer {
    pub(crate) data_max: u32,
    pub(crate) dma_maps_max: u32,
}

/// The server's half: judges a proposal, and returns what the client can take with the payload of
/// the reply. The reply names no capability that the client has not (an unknown one makes QEMU
/// warn), but always its own limits, whose defaults a client would otherwise assume.
pub(crate) fn negotiate(proposal: &[u8], offer: Offer) -> Result<(Terms, Vec<u8>), Errno> {
    let (version, data) = parse(proposal)?;
    if version.major != MAJOR {
        return Err(Errno::EINVAL);
    }
    let theirs = data.capabilities;
    let ours = Capabilities {
        max_msg_fds: Some(FDS_PER_MESSAGE as u32),
        max_data_xfer_size: Some(offer.data_max),
        pgsizes: theirs.pgsizes.map(|_| PAGE_SIZES),
        max_dma_maps: theirs
            .max_dma_maps
            .map(|maps| maps.min(u64::from(offer.dma_maps_max))),
        write_multiple: theirs.write_multiple,
    };
    let minor = version.minor.min(MINOR);
    let reply = encode(
        VersionPayload {
            major: MAJOR,
            minor,
        },
        ours,
    )?;
    Ok((terms(&theirs), reply))
}

/// The client's half: the payload of the request.
pub(crate) fn propose(offer: Offer) -> Result<Vec<u8>, Errno> {
    let capabilities = Capabilities {
        max_msg_fds: Some(FDS_PER_MESSAGE as u32),
        max_data_xfer_size: Some(offer.data_max),
        pgsizes: Some(PAGE_SIZES),
        max_dma_maps: Some(u64::from(offer.dma_maps_max)),
        write_multiple: Some(true),
    };
    encode(
        VersionPayload {
            major: MAJOR,
            minor: MINOR,
        },
        capabilities,
    )
}

/// The client's other half: what the server answered, and what it can take.
pub(crate) fn conclude(reply: &[u8]) -> Result<(VersionPayload, Terms), Errno> {
    let (version, data) = parse(reply)?;
    if version.major != MAJOR || version.minor > MINOR {
        return Err(Errno::EPROTONOSUPPORT);
    }
    Ok((version, terms(&data.capabilities)))
}

fn terms(capabilities: &Capabilities) -> Terms {
    Terms {
        fds_max: capabilities.max_msg_fds.unwrap_or(FDS_DEFAULT),
        data_max: capabilities
            .max_data_xfer_size
            .unwrap_or(DATA_TRANSFER_DEFAULT),
    }
}

/// The version data is optional; if it is there, it ends in NUL.
fn parse(payload: &[u8]) -> Result<(VersionPayload, VersionData), Errno> {
    let (version, json) = protocol::take::<VersionPayload>(payload)?;
    let data = match json {
        [] => VersionData::default(),
        [json @ .., 0] if json.len() <= JSON_MAX => {
            serde_json::from_slice(json).map_err(|_| Errno::EINVAL)?
        }
        _ => return Err(Errno::EINVAL),
    };
    Ok((version, data))
}

fn encode(version: VersionPayload, capabilities: Capabilities) -> Result<Vec<u8>, Errno> {
    let mut payload = version.as_bytes().to_vec();
    serde_json::to_writer(&mut payload, &VersionData { capabilities })
        .map_err(|_| Errno::EINVAL)?;
    payload.push(0);
    Ok(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFER: Offer = Offer {
        data_max: 1 << 20,
        dma_maps_max: 1000,
    };

    fn proposal(minor: u16, json: &str) -> Vec<u8> {
        let mut payload = VersionPayload { major: 0, minor }.as_bytes().to_vec();
        payload.extend(json.as_bytes());
        payload
    }

    fn answer(minor: u16, json: &str) -> Result<(Terms, u16, String), Errno> {
        let (terms, reply) = negotiate(&proposal(minor, json), OFFER)?;
        let (version, json) = protocol::take::<VersionPayload>(&reply).expect("a version");
        assert_eq!(version.major, 0);
        let (nul, json) = json.split_last().expect("version data");
        assert_eq!(*nul, 0);
        Ok((
            terms,
            version.minor,
            String::from_utf8(json.to_vec()).expect("UTF-8"),
        ))
    }

    #[test]
    fn qemu_gets_version_0_0_and_only_capabilities_it_knows() {
        let qemu = "{\"capabilities\": {\"pgsizes\": 4096, \"max_msg_fds\": 16, \
                    \"max_dma_maps\": 65535, \"max_data_xfer_size\": 1048576, \"migration\": \
                    {\"max_bitmap_size\": 268435456, \"pgsize\": 4096}, \
                    \"write_multiple\": true}}\0";
        let (terms, minor, json) = answer(0, qemu).expect("agreement");
        assert_eq!(minor, 0);
        assert_eq!(
            terms,
            Terms {
                fds_max: 16,
                data_max: 1 << 20
            }
        );
        assert_eq!(
            json,
            "{\"capabilities\":{\"max_msg_fds\":16,\"max_data_xfer_size\":1048576,\
             \"pgsizes\":4096,\"max_dma_maps\":1000,\"write_multiple\":true}}"
        );
        // QEMU reads a reply into the buffer of its request.
        assert!(json.len() < qemu.len());
    }

    #[test]
    fn the_third_party_crate_gets_version_0_1() {
        let json = "{\"capabilities\":{\"max_msg_fds\":1,\"max_data_xfer_size\":1048576,\
                    \"migration\":{\"pgsize\":4096}}}\0";
        let (terms, minor, json) = answer(1, json).expect("agreement");
        assert_eq!(minor, 1);
        assert_eq!(terms.fds_max, 1);
        assert_eq!(
            json,
            "{\"capabilities\":{\"max_msg_fds\":16,\"max_data_xfer_size\":1048576}}"
        );
    }

    #[test]
    fn a_newer_minor_version_is_answered_with_ours_and_no_data_means_defaults() {
        let (terms, minor, _) = answer(7, "").expect("agreement");
        assert_eq!(minor, MINOR);
        assert_eq!(
            terms,
            Terms {
                fds_max: 1,
                data_max: 1 << 20
            }
        );
    }

    #[test]
    fn a_bad_proposal_is_refused() {
        let long = format!("{{\"x\":\"{}\"}}\0", "y".repeat(JSON_MAX));
        for json in [
            "{\"capabilities\":{}}",
            "\0",
            "{\0",
            "{}\0\0",
            "{\"capabilities\":7}\0",
            "{\"capabilities\":{\"max_msg_fds\":\"many\"}}\0",
            "{\"capabilities\":{\"max_msg_fds\":-1}}\0",
            "{\"capabilities\":{\"max_data_xfer_size\":4294967296}}\0",
            "\u{7f}\0",
            &long,
        ] {
            assert_eq!(answer(0, json).err(), Some(Errno::EINVAL), "{json:?}");
        }
        assert_eq!(negotiate(&[0, 0, 0], OFFER).err(), Some(Errno::EINVAL));
        let major = VersionPayload { major: 1, minor: 0 };
        assert_eq!(
            negotiate(major.as_bytes(), OFFER).err(),
            Some(Errno::EINVAL)
        );
    }

    #[test]
    fn a_client_understands_the_answer_to_its_own_proposal() {
        let (_, reply) = negotiate(&propose(OFFER).expect("JSON"), OFFER).expect("agreement");
        let (version, terms) = conclude(&reply).expect("an answer");
        assert_eq!(version, VersionPayload { major: 0, minor: 1 });
        assert_eq!(
            terms,
            Terms {
                fds_max: 16,
                data_max: 1 << 20
            }
        );
        let newer = VersionPayload { major: 0, minor: 2 };
        assert_eq!(
            conclude(newer.as_bytes()).err(),
            Some(Errno::EPROTONOSUPPORT)
        );
    }
}
