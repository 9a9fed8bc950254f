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
        if self.read_parameter(name).await?.as_deref() == Some(id.as_str()) {
            return Ok(Change::Unchanged);
        }
        let send = |ssm: &Client| {
            let request = ssm.put_parameter().name(name).value(id.as_str());
            request.r#type(ParameterType::String).overwrite(true).send()
        };
        let answer = self.inner.api.call(Action::PutParameter, send).await;
        answer.map_err(|failure| failure.into_error(format!("write the parameter {name}")))?;
        Ok(Change::Changed)
    }

    /// The value of a parameter of this region, if it is there.
    ///
    /// # Errors
    /// As for [`Self::write_parameter`].
    pub async fn read_parameter(&self, name: &str) -> Result<Option<String>> {
        let send = |ssm: &Client| ssm.get_parameter().name(name).send();
        match self.inner.api.call(Action::GetParameter, send).await {
            Ok(answer) => Ok(answer.parameter.and_then(|parameter| parameter.value)),
            Err(failure) if failure.class() == Class::NotFound => Ok(None),
            Err(failure) => Err(failure.into_error(format!("read the parameter {name}"))),
        }
    }
}
