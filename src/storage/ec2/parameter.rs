//! Parameters of Systems Manager, where others look for the newest snapshot.

use aws_sdk_ssm::Client;
use aws_sdk_ssm::types::ParameterType;

use super::Ec2Store;
use super::api::{Action, failure};
use super::failure::Class;
use crate::error::Result;
use crate::report::Change;
use crate::storage::SnapshotId;

impl Ec2Store {
    /// Makes a parameter of this region have the snapshot's ID as its value. `Unchanged`: it had.
    ///
    /// # Errors
    /// `Storage` for what Systems Manager refuses, `Permission` for what is not permitted.
    pub async fn write_parameter(&self, name: &str, id: &SnapshotId) -> Result<Change> {
        let ssm = Client::new(&self.inner.api.sdk_config().await);
        let doing = format!("write the parameter {name}");
        match ssm.get_parameter().name(name).send().await {
            Ok(answer) if answer.parameter().and_then(|parameter| parameter.value()) == Some(id.as_str()) => {
                return Ok(Change::Unchanged);
            }
            Ok(_) => {}
            Err(error) => match failure(Action::GetParameter, &error) {
                failure if failure.class() == Class::NotFound => {}
                failure => return Err(failure.into_error(doing)),
            },
        }
        let request = ssm.put_parameter().name(name).value(id.as_str()).r#type(ParameterType::String).overwrite(true);
        request.send().await.map_err(|error| failure(Action::PutParameter, &error).into_error(doing))?;
        Ok(Change::Changed)
    }
}
