//! What admin commands are about, independent of how a host reaches the controller: identities,
//! features, log pages and events. Judged and made here, one file per command family; what a
//! command does to a controller is the business of that controller
//! ([`pcie::controller`](crate::pcie::controller)), which this module does not know.

pub mod async_event;
pub mod features;
pub mod identify;
pub mod log_page;
