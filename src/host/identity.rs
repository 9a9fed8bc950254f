//! Which EC2 instance this is: said by the user, or asked of the instance metadata service (IMDS, version 2 only).

use std::time::Duration;

use aws_config::imds;
use aws_config::provider_config::ProviderConfig;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use serde::Deserialize;
use tokio::sync::OnceCell;

use crate::error::{Error, Kind, OrFail, Result};

/// Signed by EC2, and all that is asked for in one answer (EC2 User Guide, "Instance identity documents").
const DOCUMENT: &str = "/latest/dynamic/instance-identity/document";
/// The service is in the hypervisor: an answer takes milliseconds, or does not come at all.
const TIMEOUT: Duration = Duration::from_secs(1);
const ATTEMPTS: u32 = 2;

/// What the user says of this instance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stated {
    /// The instance's ID.
    pub instance_id: Option<String>,
    /// The availability zone's name.
    pub availability_zone: Option<String>,
}

impl Stated {
    /// Whether the metadata service need not be asked.
    pub fn is_complete(&self) -> bool {
        self.instance_id.is_some() && self.availability_zone.is_some()
    }
}

/// The fields of the instance identity document that matter here.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Document {
    /// `i-0123456789abcdef0`.
    pub instance_id: String,
    /// `eu-central-1a`.
    pub availability_zone: String,
    /// `eu-central-1`.
    pub region: String,
}

impl Document {
    /// Reads the service's answer. Whatever answers at its address is not believed that it is the service.
    pub fn parse(text: &str) -> Result<Document> {
        let otherwise = || "the instance metadata service answers something else";
        let document: Document = serde_json::from_str(text).or_fail(Kind::Usage, otherwise)?;
        let is_name = |text: &String| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        let Document { instance_id, availability_zone, region } = &document;
        let are_names = [instance_id, availability_zone, region].into_iter().all(is_name);
        if are_names { Ok(document) } else { Err(Error::new(Kind::Usage, otherwise())) }
    }
}

/// The identity of this instance, asked for when it is needed first.
#[derive(Debug)]
pub struct Identity {
    stated: Stated,
    imds: imds::Client,
    document: OnceCell<Document>,
}

impl Identity {
    /// What is stated counts; the rest is asked through this client, at `AWS_EC2_METADATA_SERVICE_ENDPOINT` if that is set.
    pub fn new(stated: Stated, http: SharedHttpClient) -> Self {
        let provider = ProviderConfig::without_region().with_http_client(http);
        let imds = imds::Client::builder()
            .configure(&provider)
            .max_attempts(ATTEMPTS)
            .connect_timeout(TIMEOUT)
            .read_timeout(TIMEOUT)
            .build();
        Identity { stated, imds, document: OnceCell::new() }
    }

    /// The instance's ID.
    ///
    /// # Errors
    /// `Usage` when nobody tells; the hint says why that may be.
    pub async fn instance_id(&self) -> Result<&str> {
        match &self.stated.instance_id {
            Some(id) => Ok(id),
            None => Ok(&self.document().await?.instance_id),
        }
    }

    /// The name of the availability zone.
    ///
    /// # Errors
    /// As for [`Identity::instance_id`].
    pub async fn availability_zone(&self) -> Result<&str> {
        match &self.stated.availability_zone {
            Some(zone) => Ok(zone),
            None => Ok(&self.document().await?.availability_zone),
        }
    }

    /// What the metadata service says, whatever is stated.
    ///
    /// # Errors
    /// As for [`Identity::instance_id`].
    pub async fn document(&self) -> Result<&Document> {
        self.document.get_or_try_init(|| self.ask()).await
    }

    /// What the user says.
    pub fn stated(&self) -> &Stated {
        &self.stated
    }

    async fn ask(&self) -> Result<Document> {
        let text = self.imds.get(DOCUMENT).await.map_err(unanswered)?;
        Document::parse(text.as_ref())
    }
}

fn unanswered(cause: imds::client::error::ImdsError) -> Error {
    use imds::client::error::ImdsError;
    let hint = match &cause {
        // The token's answer has the hop limit as its TTL, 1 by default, and dies on the bridge of a container's network.
        ImdsError::FailedToLoadToken(_) => {
            "in a container: give it --network host, raise the instance's metadata hop limit to 2, or give --instance-id and \
             --availability-zone; not on EC2: --store local"
        }
        _ => "give --instance-id and --availability-zone",
    };
    Error::new(Kind::Usage, "the instance metadata service does not tell which instance this is").hint(hint).because(cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_read_whatever_else_is_in_it() {
        let text = r#"{"accountId": "123456789012", "instanceId": "i-0123456789abcdef0", "availabilityZone": "eu-central-1a",
                       "region": "eu-central-1", "billingProducts": null}"#;
        let document: Document = serde_json::from_str(text).unwrap();
        assert_eq!((document.instance_id.as_str(), document.region.as_str()), ("i-0123456789abcdef0", "eu-central-1"));
        assert!(serde_json::from_str::<Document>("{}").is_err());
    }
}
