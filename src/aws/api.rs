//! The API of one region: settings that all services share, credentials that are renewed, calls.

use std::error::Error as StdError;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{AppName, BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use aws_smithy_http_client::{Builder, Connector};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use super::failure::{Failure, Missing};
use crate::step;

/// The SDK repeats what may be repeated: throttling, 5xx, time-outs, with jitter; six times in up to half a minute.
const ATTEMPTS: u32 = 7;
const FIRST_BACKOFF: Duration = Duration::from_millis(500);
const LONGEST_BACKOFF: Duration = Duration::from_secs(8);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// AWS answers within seconds, if it does.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);

/// Defines [`Action`] and the list of all of them.
macro_rules! actions {
    ($($service:literal: $($name:ident),+;)+) => {
        /// The API actions that this program calls: exactly those that `docs/iam-policy.json` permits, and STS's
        /// GetCallerIdentity, which needs no permission (API reference), and RunInstances, which is called with DryRun only.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(missing_docs, reason = "the API references describe each")]
        pub enum Action {
            $($($name),+),+
        }

        impl Action {
            /// All of them.
            pub const ALL: &[Action] = &[$($(Action::$name),+),+];

            /// The service that has it, as policies name it.
            pub fn service(self) -> &'static str {
                match self {
                    $($(Action::$name)|+ => $service),+
                }
            }

            /// What policies call the permission: `ec2:CreateVolume`.
            pub fn permission(self) -> &'static str {
                match self {
                    $($(Action::$name => concat!($service, ":", stringify!($name)),)+)+
                }
            }
        }
    };
}

actions!(
    "autoscaling":
        CreateLaunchConfiguration,
        DeleteLaunchConfiguration,
        DescribeAutoScalingGroups,
        DescribeInstanceRefreshes,
        DescribeLaunchConfigurations,
        StartInstanceRefresh,
        UpdateAutoScalingGroup;
    "ec2":
        AttachVolume,
        CopySnapshot,
        CreateLaunchTemplateVersion,
        CreateSnapshot,
        CreateVolume,
        DeleteLaunchTemplateVersions,
        DeleteSnapshot,
        DeleteVolume,
        DescribeFastSnapshotRestores,
        DescribeImages,
        DescribeLaunchTemplateVersions,
        DescribeSnapshotAttribute,
        DescribeSnapshots,
        DescribeVolumes,
        DescribeVolumesModifications,
        DetachVolume,
        DisableFastSnapshotRestores,
        ModifyLaunchTemplate,
        ModifySnapshotAttribute,
        ModifyVolume,
        RunInstances;
    "ssm": GetParameter, PutParameter;
    "sts": GetCallerIdentity;
);

/// HTTPS by rustls with the system's certificates, through the proxy that the environment names.
pub fn http_client() -> SharedHttpClient {
    Builder::new().build_with_connector_fn(|settings, components| {
        let mut builder = Connector::builder().proxy_config(ProxyConfig::from_env());
        builder.set_connector_settings(settings.cloned());
        builder.set_sleep_impl(components.and_then(|components| components.sleep_impl()));
        builder.tls_provider(Provider::Rustls(CryptoMode::Ring)).build()
    })
}

/// HTTP without a proxy: for the metadata service, which is on the instance itself.
pub fn direct_http_client() -> SharedHttpClient {
    Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https()
}

/// A service's client.
pub trait Service {
    /// With these settings; cheap, for what is costly is in them: connections and credentials.
    fn of(config: &SdkConfig) -> Self;
}

/// Makes the clients of SDK crates a [`Service`].
macro_rules! services {
    ($($name:ident),* $(,)?) => {
        $(impl Service for $name::Client {
            fn of(config: &SdkConfig) -> Self {
                $name::Client::new(config)
            }
        })*
    };
}

services!(aws_sdk_autoscaling, aws_sdk_ec2, aws_sdk_ssm, aws_sdk_sts);

/// The APIs of one region.
#[derive(Debug)]
pub struct Api {
    region: Option<String>,
    config: Mutex<Option<SdkConfig>>,
}

impl Api {
    /// Of this region; without one, of the one that the SDK's usual places name: `AWS_REGION`, the profile, the instance.
    pub fn new(region: Option<String>) -> Self {
        Api { region, config: Mutex::default() }
    }

    /// The region, once it is known.
    pub fn region(&self) -> Option<String> {
        let used = self.current().and_then(|config| config.region().map(ToString::to_string));
        used.or_else(|| self.region.clone())
    }

    /// Makes a call. The SDK refreshes credentials before they expire as far as it knows when; if AWS knows better, they are
    /// looked for once more in the places where they come from.
    pub async fn call<C, T, E, F>(&self, action: Action, make: impl Fn(&C) -> F) -> std::result::Result<T, Failure>
    where
        C: Service,
        E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
        F: Future<Output = std::result::Result<T, SdkError<E, HttpResponse>>>,
    {
        let answer = self.call_once(action, &make).await;
        match answer {
            Err(failure) if matches!(failure.code(), "ExpiredToken" | "RequestExpired") => {
                *self.config.lock().expect("no holder panics") = None;
                self.call_once(action, &make).await
            }
            answer => answer,
        }
    }

    async fn call_once<C, T, E, F>(&self, action: Action, make: &impl Fn(&C) -> F) -> std::result::Result<T, Failure>
    where
        C: Service,
        E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
        F: Future<Output = std::result::Result<T, SdkError<E, HttpResponse>>>,
    {
        let config = self.config().await;
        if config.region().is_none() {
            return Err(no_region(action));
        }
        step::before(format_args!("{action:?}"));
        let began = Instant::now();
        let answer = make(&C::of(&config)).await;
        step::after(format_args!("{action:?}"));
        let answer = answer.map_err(|error| failure(action, &error));
        let code = answer.as_ref().err().map_or("ok", Failure::code);
        tracing::debug!("{}: {action:?} in {:?}: {code}", action.service(), began.elapsed());
        answer
    }

    fn current(&self) -> Option<SdkConfig> {
        self.config.lock().expect("no holder panics").clone()
    }

    /// The settings of a client of any service; without a region, if none is named anywhere.
    pub async fn config(&self) -> SdkConfig {
        if let Some(config) = self.current() {
            return config;
        }
        let config = self.load().await;
        self.config.lock().expect("no holder panics").insert(config).clone()
    }

    async fn load(&self) -> SdkConfig {
        let retry = RetryConfig::standard()
            .with_max_attempts(ATTEMPTS)
            .with_initial_backoff(FIRST_BACKOFF)
            .with_max_backoff(LONGEST_BACKOFF);
        let timeouts = TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).operation_attempt_timeout(ATTEMPT_TIMEOUT);
        let name = concat!("ebs-bake-", env!("CARGO_PKG_VERSION"));
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http_client())
            .retry_config(retry)
            .timeout_config(timeouts.build())
            .app_name(AppName::new(name).expect("letters, digits, dashes and dots are fine"));
        if let Some(region) = self.region.clone() {
            loader = loader.region(Region::new(region));
        }
        loader.load().await
    }
}

fn no_region(action: Action) -> Failure {
    Failure { action, code: None, status: None, message: String::new(), missing: Some(Missing::Region) }
}

fn failure<E: ProvideErrorMetadata + StdError + 'static>(action: Action, error: &SdkError<E, HttpResponse>) -> Failure {
    let code = error.code().map(str::to_owned);
    let message = error.message().map(str::to_owned).unwrap_or_else(|| match code {
        Some(_) => String::new(),
        None => innermost(error),
    });
    let status = error.raw_response().map(|response| response.status().as_u16());
    let missing = has_cause::<CredentialsError>(error).then_some(Missing::Credentials);
    Failure { action, code, status, message, missing }
}

fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn StdError + 'static)| (*error).source())
}

fn has_cause<C: StdError + 'static>(error: &(dyn StdError + 'static)) -> bool {
    causes(error).any(|cause| cause.is::<C>())
}

/// The outer layers say "dispatch failure" and the like.
fn innermost(error: &(dyn StdError + 'static)) -> String {
    causes(error).last().map(ToString::to_string).unwrap_or_default()
}
