//! Nothing but tests: the `vfio_user` crate of others as a client, of our server and of the daemon.
