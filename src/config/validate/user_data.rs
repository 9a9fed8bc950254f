//! `user-data`: defaults filled in.

use std::time::Duration;

use super::{DEFAULT_DEVICE, DEFAULT_VOLUME_NAME, ParseLocation, refuse};
use crate::config::settings;
use crate::error::Result;
use crate::fleet::user_data::{Boot, Fstab, UserData};

const DEFAULT_MOUNT_POINT: &str = "/chef";
/// A volume of the instance's own mapping is attached before the instance starts; one that is attached later takes seconds.
const DEFAULT_DEVICE_TIMEOUT: Duration = Duration::from_secs(120);
/// systemd goes on with the boot meanwhile, and mounts also what appears later.
const DEFAULT_FSTAB_TIMEOUT: Duration = Duration::from_secs(30);
/// Of a cookbook that is in several of them, Chef takes the last.
const DEFAULT_COOKBOOK_PATHS: [&str; 4] = ["vendor/cookbooks", "berks-cookbooks", "cookbooks", "site-cookbooks"];
const DEFAULT_ATTEMPTS: u32 = 3;
/// What a mirror or an API that refused needs.
const DEFAULT_RETRY_PAUSE: Duration = Duration::from_secs(30);

/// `user-data`.
pub fn user_data(settings: settings::UserData, parse: ParseLocation) -> Result<UserData> {
    let settings::UserData { output, node, chef } = settings;
    if node.device_timeout.is_some_and(|timeout| timeout.is_zero()) {
        return refuse("--device-timeout: a device needs some time", "give a second at least");
    }
    let volume_name = node.volume_name.unwrap_or_else(|| DEFAULT_VOLUME_NAME.into());
    let mount_point = node.mount_point.unwrap_or_else(|| DEFAULT_MOUNT_POINT.into());
    if output.fstab.unwrap_or(false) {
        let timeout = node.device_timeout.unwrap_or(DEFAULT_FSTAB_TIMEOUT);
        return Ok(UserData::Fstab(Fstab { volume_name, mount_point, timeout }));
    }
    let Some(role) = chef.role else {
        return refuse("user-data: --role is not given", "give the role that the nodes have, such as web");
    };
    // A list of words has no empty ones.
    let or_here = |path: String| if path.is_empty() { ".".to_owned() } else { path };
    let usual = || vec![DEFAULT_COOKBOOK_PATHS.map(str::to_owned).to_vec()];
    let boot = Boot {
        role,
        environment: chef.environment,
        volume_name,
        device: node.device.unwrap_or_else(|| DEFAULT_DEVICE.into()),
        mount_point,
        device_timeout: node.device_timeout.unwrap_or(DEFAULT_DEVICE_TIMEOUT),
        chef_path: chef.chef_path.filter(|path| !path.is_empty()),
        cookbook_paths: chef.cookbook_path.unwrap_or_else(usual).concat().into_iter().map(or_here).collect(),
        chef: chef.chef,
        chef_license: chef.chef_license,
        attempts: chef.attempts.unwrap_or(DEFAULT_ATTEMPTS),
        retry_pause: chef.retry_pause.unwrap_or(DEFAULT_RETRY_PAUSE),
        expect_commit: node.expect_commit.map(|commit| commit.to_string()),
        expect_repository: node.expect_repository.map(|text| parse(&text)?.0.canonical()).transpose()?,
        on_success: chef.on_success,
        on_failure: chef.on_failure,
    };
    Ok(UserData::Script(Box::new(boot), output.format.unwrap_or_default()))
}
