//! What this program and its libraries do in detail (`tracing`), for whoever looks for a fault. Off unless asked for.

use std::fmt::{Debug, Write};
use std::sync::Arc;

use tracing::field::{Field, Visit};
use tracing::{Event as Traced, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use super::{Event, Observer};
use crate::error::{Error, Kind, Result};

/// The variable that asks for it: a level (`debug`, `trace`), or levels of modules (`ebs_bake=debug,aws_smithy_runtime=trace`).
pub const VARIABLE: &str = "EBS_BAKE_TRACE";

/// From now on the observer is told of what the filter lets through.
///
/// # Errors
/// `Usage` for a filter that cannot be read.
pub fn install(filter: &str, observer: Arc<dyn Observer>) -> Result<()> {
    let filter: Targets = filter.parse().map_err(|cause| {
        Error::new(Kind::Usage, format!("{VARIABLE} is no filter"))
            .because(cause)
            .hint("a level (error, warn, info, debug, trace), or such as ebs_bake=debug,aws_smithy_runtime=trace")
    })?;
    let subscriber = tracing_subscriber::registry().with(Teller(observer).with_filter(filter));
    tracing::subscriber::set_global_default(subscriber).map_err(|cause| Error::new(Kind::Usage, "traced already").because(cause))
}

struct Teller(Arc<dyn Observer>);

impl<S: Subscriber> Layer<S> for Teller {
    fn on_event(&self, event: &Traced<'_>, _context: Context<'_, S>) {
        let (metadata, mut text) = (event.metadata(), Text::default());
        event.record(&mut text);
        let level = metadata.level().as_str();
        self.0.event(&Event::Trace { level, target: metadata.target(), text: &(text.message + &text.fields) });
    }
}

/// The message, then each field as `name=value`.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let written = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
        written.expect("writing to a string cannot fail");
    }
}
