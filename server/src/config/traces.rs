//! Where traces go, and how many.

use super::error::ConfigError;
use super::settings::Settings;

/// A sampling rate of this keeps all.
const RATE_ALL: i64 = 1_000_000;

/// Traces for a collector of OpenTelemetry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TracesConfig {
    /// Host and port of the collector. Default `localhost:4317`.
    pub address: String,
    /// Name of the service. Default `etcd`.
    pub service_name: String,
    /// Id of this process. Default none.
    pub instance_id: Option<String>,
    /// Traces to keep of a million that begin here. Default 0, at most a million.
    pub per_million: u32,
}

/// What is to be exported. As in etcd, the other flags mean nothing unless traces are asked for.
///
/// # Errors
/// A rate that is none, in etcd's words; an address that cannot be one.
pub(super) fn traces(settings: &Settings) -> Result<Option<TracesConfig>, ConfigError> {
    if !settings.bool("enable-distributed-tracing") {
        return Ok(None);
    }
    Ok(Some(TracesConfig {
        address: address(settings)?,
        service_name: settings.text("distributed-tracing-service-name"),
        instance_id: settings.text_if_any("distributed-tracing-instance-id"),
        per_million: per_million(settings)?,
    }))
}

fn per_million(settings: &Settings) -> Result<u32, ConfigError> {
    const NAME: &str = "distributed-tracing-sampling-rate";
    let rate = settings.signed(NAME);
    let why = match rate {
        ..0 => "tracing sampling rate must be positive".to_owned(),
        0..=RATE_ALL => return Ok(u32::try_from(rate).expect("at most a million")),
        _ => format!("tracing sampling rate must be less than {RATE_ALL}"),
    };
    let advice = "set it to a number from 0, for none, to 1000000, for all";
    Err(ConfigError::invalid(format!("{}: {why}", settings.origin(NAME)), advice))
}

fn address(settings: &Settings) -> Result<String, ConfigError> {
    const NAME: &str = "distributed-tracing-address";
    let address = settings.text(NAME);
    let is_one = address.parse::<http::uri::Authority>().is_ok_and(|authority| {
        authority.port_u16().is_some() && !authority.host().is_empty() && !address.contains('@')
    });
    if is_one {
        return Ok(address);
    }
    let cause = format!("{}: {address:?} is no host and port", settings.origin(NAME));
    Err(ConfigError::invalid(cause, "write it as localhost:4317"))
}
