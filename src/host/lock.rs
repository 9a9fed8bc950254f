//! Having a device to ourselves, on this host.
