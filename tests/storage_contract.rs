//! The local block store against the contract of `BlockStorage`, on real loop devices.

#![allow(missing_docs, clippy::unwrap_used)]

use std::fs::{File, OpenOptions};
use std::path::Path;

use ebs_bake::storage::Attachment;
use ebs_bake::storage::local::LocalStore;

#[path = "support/contract.rs"]
mod contract;
#[path = "support/store.rs"]
mod support;

use support::{block_on, needs_root, xfs};

fn open(attachment: &Attachment) -> File {
    let Attachment::Here { device, .. } = attachment else { panic!("not attached here: {attachment:?}") };
    OpenOptions::new().read(true).write(true).open(device).unwrap()
}

fn passes_the_contract(dir: &Path) {
    let (store, other) = (LocalStore::open(dir).unwrap(), LocalStore::open(dir).unwrap());
    block_on(contract::run(&contract::Subject {
        store: &store,
        other: &other,
        open: &open,
        run: "only".into(),
        one_at_a_time: None,
    }));
    assert_eq!(std::fs::read_dir(dir.join("staging")).unwrap().count(), 0);
}

#[test]
fn root_local_store_passes_the_contract_by_copying() {
    if !needs_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    passes_the_contract(&dir.path().join("store"));
}

#[test]
fn root_local_store_passes_the_contract_by_reflink() {
    if !needs_root() {
        return;
    }
    let Some(filesystem) = xfs() else { return };
    passes_the_contract(&filesystem.path().join("store"));
}
