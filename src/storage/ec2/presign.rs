//! The signed URL by which EC2 in one region is told that a copy of an encrypted snapshot of another region is permitted.
//!
//! AWS' SDKs for other languages make it by themselves; that for Rust does not (smithy-rs#133).

use std::time::{Duration, SystemTime};

use aws_config::SdkConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;
use aws_sdk_ec2::config::endpoint::{DefaultResolver, Params, ResolveEndpoint};
use aws_sigv4::http_request::{SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign};
use aws_sigv4::sign::v4;
use url::Url;

use crate::aws::api::Api;
use crate::error::{Error, Kind, OrFail, Result};

/// As botocore has it (`generate_presigned_url`).
const LIFETIME: Duration = Duration::from_secs(3600);
/// Of the EC2 API.
const VERSION: &str = "2016-11-15";

/// A copy of a snapshot.
pub(super) struct Copy<'a> {
    pub snapshot: &'a str,
    pub from: &'a str,
    pub to: &'a str,
    pub kms_key: Option<&'a str>,
}

/// What EC2 in the destination asks EC2 in `copy.from` with, in our name (API reference, CopySnapshot, `PresignedUrl`).
pub(super) async fn url(home: &Api, copy: &Copy<'_>) -> Result<String> {
    let config = home.config().await;
    let endpoint = endpoint(&config, copy.from).await?;
    let credentials = match config.credentials_provider() {
        Some(provider) => provider.provide_credentials().await.or_fail(Kind::Permission, || "no credentials")?,
        None => return Err(Error::new(Kind::Permission, "no credentials")),
    };
    signed(endpoint, copy, credentials, SystemTime::now())
}

async fn endpoint(config: &SdkConfig, region: &str) -> Result<Url> {
    let failed = || format!("EC2 has no endpoint in {region}");
    let params = Params::builder().region(region).set_endpoint(config.endpoint_url().map(str::to_owned));
    let params = params.build().or_fail(Kind::Usage, failed)?;
    let endpoint = DefaultResolver::new()
        .resolve_endpoint(&params)
        .await
        .map_err(|cause| Error::new(Kind::Usage, failed()).because(cause))?;
    Url::parse(endpoint.url()).or_fail(Kind::Usage, failed)
}

fn signed(mut url: Url, copy: &Copy<'_>, credentials: Credentials, time: SystemTime) -> Result<String> {
    url.set_path("/");
    {
        let mut query = url.query_pairs_mut();
        query.append_pair("Action", "CopySnapshot").append_pair("Version", VERSION);
        query.append_pair("SourceRegion", copy.from).append_pair("SourceSnapshotId", copy.snapshot);
        query.append_pair("DestinationRegion", copy.to);
        if let Some(key) = copy.kms_key {
            query.append_pair("Encrypted", "true").append_pair("KmsKeyId", key);
        }
    }
    let failed = || "cannot sign the copy of an encrypted snapshot";
    let mut settings = SigningSettings::default();
    settings.signature_location = SignatureLocation::QueryParams;
    settings.expires_in = Some(LIFETIME);
    let identity = credentials.into();
    let params = v4::SigningParams::builder().identity(&identity).region(copy.from).name("ec2").time(time).settings(settings);
    let params = params.build().or_fail(Kind::Usage, failed)?.into();
    let request = SignableRequest::new("GET", url.as_str(), std::iter::empty(), SignableBody::Bytes(b""));
    let request = request.or_fail(Kind::Usage, failed)?;
    let (instructions, _) = sign(request, &params).or_fail(Kind::Usage, failed)?.into_parts();
    for (name, value) in instructions.params() {
        url.query_pairs_mut().append_pair(name, value);
    }
    Ok(url.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What botocore 1.44 makes of the same (`SigV4QueryAuth`).
    const OF_BOTOCORE: &str = "https://ec2.us-east-1.amazonaws.com/?Action=CopySnapshot&Version=2016-11-15&SourceRegion=us-east-1\
        &SourceSnapshotId=snap-0123456789abcdef0&DestinationRegion=eu-west-1&Encrypted=true\
        &KmsKeyId=arn%3Aaws%3Akms%3Aeu-west-1%3A123456789012%3Akey%2F0-1&X-Amz-Algorithm=AWS4-HMAC-SHA256\
        &X-Amz-Credential=AKIDEXAMPLE%2F20260102%2Fus-east-1%2Fec2%2Faws4_request&X-Amz-Date=20260102T030405Z\
        &X-Amz-Expires=3600&X-Amz-SignedHeaders=host&X-Amz-Security-Token=session%2F%2Btoken%3D\
        &X-Amz-Signature=ae6bc0947a97410663c4ead7e10c3a8c6d12db2ebc0fc24eac3dae6272a9de7a";

    #[test]
    fn the_url_is_signed_as_other_clients_sign_it() {
        let key = "arn:aws:kms:eu-west-1:123456789012:key/0-1";
        let copy = Copy { snapshot: "snap-0123456789abcdef0", from: "us-east-1", to: "eu-west-1", kms_key: Some(key) };
        let secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
        let credentials = Credentials::new("AKIDEXAMPLE", secret, Some("session/+token=".into()), None, "test");
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_323_045);
        let endpoint = Url::parse("https://ec2.us-east-1.amazonaws.com").unwrap();
        let url = Url::parse(&signed(endpoint, &copy, credentials, time).unwrap()).unwrap();
        let sorted = |url: &Url| {
            let mut pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
            pairs.sort();
            pairs
        };
        assert_eq!(sorted(&url), sorted(&Url::parse(OF_BOTOCORE).unwrap()));
        assert_eq!((url.host_str(), url.path()), (Some("ec2.us-east-1.amazonaws.com"), "/"));
    }

    #[tokio::test]
    async fn every_partition_has_its_endpoint() {
        let config = SdkConfig::builder().build();
        for (region, host) in [("eu-west-1", "ec2.eu-west-1.amazonaws.com"), ("cn-north-1", "ec2.cn-north-1.amazonaws.com.cn")] {
            assert_eq!(endpoint(&config, region).await.unwrap().host_str(), Some(host));
        }
    }
}
