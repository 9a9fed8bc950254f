//! Parameters of Systems Manager, where others look for the newest snapshot.

use aws_sdk_ssm::Client;
use aws_sdk_ssm::types::ParameterType;

use super::Ec2Store;
use crate::aws::api::Action;
use crate::aws::failure::Class;
use crate::error::Result;
use crate::report::Change;
use crate::storage::SnapshotId;

impl Ec2Store {
    /// Makes a parameter of this region have the snapshot's ID as its value. `Unchanged`: it had.
    ///
    /// # Errors
    /// `Storage` for what Systems Manager refuses, `Permission` for what is not permitted.
    pub async fn write_parameter(&self, name: &str, id: &SnapshotId) -> Result<Change> {
        let api = &self.inner.api;
        let doing = format!("write the parameter {name}");
        match api.call(Action::GetParameter, |ssm: &Client| ssm.get_parameter().name(name).send()).await {
            Ok(answer) if answer.parameter().and_then(|parameter| parameter.value()) == Some(id.as_str()) => {
                return Ok(Change::Unchanged);
            }
            Ok(_) => {}
            Err(failure) if failure.class() == Class::NotFound => {}
            Err(failure) => return Err(failure.into_error(doing)),
        }
        let send = |ssm: &Client| {
            let request = ssm.put_parameter().name(name).value(id.as_str());
            request.r#type(ParameterType::String).overwrite(true).send()
        };
        api.call(Action::PutParameter, send).await.map_err(|failure| failure.into_error(doing))?;
        Ok(Change::Changed)
    }
}
