//! Looking up names of hosts and users.

/// To be called before anything looks up a name: keeps a static program to the sources of names that are part of it, which are
/// files and DNS.
///
/// Where nsswitch.conf names others (mdns, resolve, myhostname, systemd, …), glibc loads the host's libraries for them, into a
/// program that has a glibc of its own already: if theirs is of another version, it crashes.
pub fn use_own_sources() {
    #[cfg(all(target_env = "gnu", target_feature = "crt-static"))]
    for (database, sources) in [(c"hosts", c"files dns"), (c"passwd", c"files"), (c"group", c"files"), (c"services", c"files")] {
        // SAFETY: both are strings that end with NUL, and glibc copies what it keeps; no other thread looks up names yet.
        unsafe { __nss_configure_lookup(database.as_ptr(), sources.as_ptr()) };
    }
}

#[cfg(all(target_env = "gnu", target_feature = "crt-static"))]
unsafe extern "C" {
    /// `nss.h` of glibc. It fails for names of databases that it does not know.
    fn __nss_configure_lookup(database: *const libc::c_char, sources: *const libc::c_char) -> libc::c_int;
}
