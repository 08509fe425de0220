//! How long a client says that it waits (`grpc-timeout`): its call ends then also here, where it is counted as what it is.

use std::time::Duration;

use http::HeaderMap;

use super::status::{Code, Status};

/// Where it stands.
pub const HEADER: &str = "grpc-timeout";
/// Digits and a unit.
const BYTES_MAX: usize = 9;

/// What a client says, if it says anything.
///
/// # Errors
/// In grpc-go's words: it is no time.
pub fn of(headers: &HeaderMap) -> Result<Option<Duration>, Status> {
    let Some(value) = headers.get(HEADER) else { return Ok(None) };
    let text = String::from_utf8_lossy(value.as_bytes());
    parse(&text).map(Some).map_err(|why| Status::new(Code::Internal, format!("malformed grpc-timeout: {why}")))
}

fn parse(text: &str) -> Result<Duration, String> {
    if text.len() < 2 {
        return Err(format!("transport: timeout string is too short: {text:?}"));
    }
    if text.len() > BYTES_MAX {
        return Err(format!("transport: timeout string is too long: {text:?}"));
    }
    let unit = text.chars().next_back().expect("two bytes at least");
    let digits = &text[..text.len() - unit.len_utf8()];
    let unit = match unit {
        'H' => Duration::from_secs(60 * 60),
        'M' => Duration::from_secs(60),
        'S' => Duration::from_secs(1),
        'm' => Duration::from_millis(1),
        'u' => Duration::from_micros(1),
        'n' => Duration::from_nanos(1),
        _ => return Err(format!("transport: timeout unit is not recognized: {text:?}")),
    };
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(format!("strconv.ParseUint: parsing {digits:?}: invalid syntax"));
    }
    // Eight digits at most.
    let number = digits.parse::<u32>().map_err(|error| error.to_string())?;
    Ok(unit * number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_grpc_go_does() {
        for (text, time) in [
            ("5S", Duration::from_secs(5)),
            ("0n", Duration::ZERO),
            ("99999999H", Duration::from_secs(99_999_999 * 3600)),
            ("1500m", Duration::from_millis(1500)),
            ("10u", Duration::from_micros(10)),
            ("2M", Duration::from_secs(120)),
        ] {
            assert_eq!(parse(text), Ok(time), "{text}");
        }
        for (text, why) in [
            ("S", "transport: timeout string is too short: \"S\""),
            ("999999999H", "transport: timeout string is too long: \"999999999H\""),
            ("5x", "transport: timeout unit is not recognized: \"5x\""),
            ("5é", "transport: timeout unit is not recognized: \"5é\""),
            ("soon", "strconv.ParseUint: parsing \"soo\": invalid syntax"),
            ("-5S", "strconv.ParseUint: parsing \"-5\": invalid syntax"),
            ("+5S", "strconv.ParseUint: parsing \"+5\": invalid syntax"),
        ] {
            assert_eq!(parse(text), Err(why.to_owned()));
        }
    }
}
