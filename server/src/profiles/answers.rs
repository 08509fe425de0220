//! Which path gives what, as Go's `net/http/pprof` has it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tracing::info;

use super::error::ProfileError;
use super::{cpu, memory, threads};
use crate::http::Query;

/// Below which all of it stands.
const ROOT: &str = "/debug/pprof";
/// How long a profile of the CPU takes, if nothing is said: Go's.
const SECONDS_DEFAULT: u64 = 30;
/// How long at most. Go has no limit of its own.
const SECONDS_MAX: u64 = 300;

const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const BYTES: &str = "application/octet-stream";

/// What is answered. Length and date are the edge's to add.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// HTTP's status.
    pub status: u16,
    /// All headers but length and date.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    fn ok(content_type: &'static str, body: impl Into<Vec<u8>>) -> Self {
        let headers = vec![("Content-Type", content_type.to_owned()), ("X-Content-Type-Options", "nosniff".to_owned())];
        Self { status: 200, headers, body: body.into() }
    }

    /// A profile, to be kept as a file.
    fn file(name: &str, body: Vec<u8>) -> Self {
        let mut answer = Self::ok(BYTES, body);
        answer.headers.push(("Content-Disposition", format!("attachment; filename=\"{name}\"")));
        answer
    }

    /// Go's header says that the text is for whoever asked for a profile.
    fn error(status: u16, text: &str) -> Self {
        let mut answer = Self::ok(TEXT, format!("{text}\n"));
        answer.headers.push(("X-Go-Pprof", "1".to_owned()));
        Self { status, ..answer }
    }

    /// What is said when the process stops amid a profile.
    pub fn stopping() -> Self {
        Self::error(503, "the server stops")
    }

    fn moved() -> Self {
        let to = format!("{ROOT}/");
        let body = format!("<a href=\"{to}\">Temporary Redirect</a>.\n\n");
        let headers = vec![("Content-Type", HTML.to_owned()), ("Location", to)];
        Self { status: 307, headers, body: body.into_bytes() }
    }
}

/// The profiles of this process.
#[derive(Clone, Debug)]
pub struct Profiles {
    /// Whose turn it is to have the heap written; one at a time, for it takes memory and CPU.
    heap: Arc<Mutex<()>>,
}

impl Profiles {
    /// Begins to sample the heap. To be called once.
    pub fn start() -> Self {
        info!(path = ROOT, "pprof is enabled");
        if let Err(error) = memory::sample() {
            info!(cause = error.to_string(), "there is no profile of the heap");
        }
        Self { heap: Arc::default() }
    }

    /// Whether a path is one of these.
    pub fn serves(path: &str) -> bool {
        path.strip_prefix(ROOT).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// The answer for a path of these; a profile of the CPU takes as long as it was asked to.
    pub async fn respond(&self, path: &str, query: &str) -> Answer {
        let Some(name) = path.strip_prefix(ROOT).and_then(|rest| rest.strip_prefix('/')) else {
            return Answer::moved();
        };
        let query = Query::parse(query);
        match name {
            "" => Answer::ok(HTML, index()),
            "cmdline" => {
                Answer::ok(TEXT, command_line(std::env::args_os().map(|word| word.to_string_lossy().into_owned())))
            }
            // Profiles carry their names: nobody has to ask for them.
            "symbol" => Answer::ok(TEXT, "num_symbols: 0\n"),
            "profile" => cpu_profile(&query).await,
            "heap" | "allocs" | "goroutine" if query.first("seconds").is_some_and(|text| !text.is_empty()) => {
                Answer::error(400, "\"seconds\" parameter is not supported for this profile type")
            }
            "heap" => self.heap(is_for_people(&query)).await,
            "goroutine" => {
                let for_people = is_for_people(&query);
                // It reads `/proc`, for each thread: on a thread that may wait.
                let list = tokio::task::spawn_blocking(move || thread_list(for_people));
                list.await.unwrap_or_else(|error| Answer::error(500, &error.to_string()))
            }
            "allocs" => Answer::error(404, "no profile of allocations: jemalloc keeps what is in use alone, see heap"),
            "block" | "mutex" => {
                Answer::error(404, &format!("no {name} profile: there is no runtime here that sees who waits for whom"))
            }
            "threadcreate" => {
                Answer::error(404, "no profile of created threads: there are few, for good; see goroutine")
            }
            "trace" => Answer::error(404, "no execution trace: there is no runtime here that could write one"),
            _ => Answer::error(404, "Unknown profile"),
        }
    }

    async fn heap(&self, for_people: bool) -> Answer {
        let turn = self.heap.clone().lock_owned().await;
        let write = move || {
            // Held until it is written, whether somebody waits for it or not.
            let _turn = turn;
            if for_people {
                memory::table().map(|text| Answer::ok(TEXT, text))
            } else {
                memory::profile().map(|body| Answer::file("heap", body))
            }
        };
        match tokio::task::spawn_blocking(write).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error @ ProfileError::NoHeap(_))) => Answer::error(404, &error.to_string()),
            Ok(Err(error)) => Answer::error(500, &error.to_string()),
            Err(error) => Answer::error(500, &error.to_string()),
        }
    }
}

/// Go's `debug`: a text in place of a profile.
fn is_for_people(query: &Query) -> bool {
    query.first("debug").and_then(|number| number.parse::<i64>().ok()).is_some_and(|number| number != 0)
}

async fn cpu_profile(query: &Query) -> Answer {
    let asked = query.first("seconds").and_then(|text| text.parse::<i64>().ok()).filter(|seconds| *seconds > 0);
    let seconds = asked.map_or(SECONDS_DEFAULT, i64::unsigned_abs);
    if seconds > SECONDS_MAX {
        return Answer::error(400, &format!("profile duration exceeds {SECONDS_MAX} seconds"));
    }
    match cpu::profile(Duration::from_secs(seconds)).await {
        Ok(body) => Answer::file("profile", body),
        Err(error) => Answer::error(500, &format!("Could not enable CPU profiling: {error}")),
    }
}

fn thread_list(for_people: bool) -> Answer {
    let answer = match threads::all() {
        Ok(list) if for_people => Ok(Answer::ok(TEXT, threads::table(&list))),
        Ok(list) => threads::profile(&list).map(|body| Answer::file("goroutine", body)),
        Err(error) => Err(ProfileError::system("threads of this process")(error)),
    };
    answer.unwrap_or_else(|error| Answer::error(500, &error.to_string()))
}

/// The words of the command line, with zeroes between them. Secrets are left out, which Go does not do.
fn command_line(words: impl Iterator<Item = String>) -> String {
    let mut is_secret = false;
    let shown = words.map(|word| {
        let was_secret = std::mem::take(&mut is_secret);
        let name = word.split('=').next().unwrap_or_default();
        let names_secret = name.starts_with('-') && (name.ends_with("-password") || name.ends_with("-user"));
        match word.split_once('=') {
            Some((name, _)) if names_secret => format!("{name}=***"),
            None if names_secret => {
                is_secret = true;
                word
            }
            _ if was_secret => "***".to_owned(),
            _ => word,
        }
    });
    shown.collect::<Vec<_>>().join("\0")
}

fn index() -> String {
    let rows: String = [
        (
            "profile",
            "profile",
            "where the CPU's time goes, for 30 seconds or <code>?seconds=</code> of them, at most 300",
        ),
        (
            "heap",
            "heap?debug=1",
            "what memory is in use; without <code>debug</code> a profile of who asked for it, in builds that can",
        ),
        ("goroutine", "goroutine?debug=1", "threads, what they do, and their time of the CPU"),
        ("cmdline", "cmdline", "the command line, without secrets"),
    ]
    .map(|(name, target, text)| format!("<tr><td><a href=\"{target}\">{name}</a></td><td>{text}</td></tr>\n"))
    .concat();
    format!(
        "<!DOCTYPE html>\n<html>\n<head><title>{ROOT}/</title></head>\n<body>\n<h1>Profiles of basalt {version}</h1>\n\
         <p>For <code>go tool pprof</code>, which takes their addresses.</p>\n<table>\n{rows}</table>\n</body>\n</html>\n",
        version = env!("CARGO_PKG_VERSION"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(path: &str, query: &str) -> Answer {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let profiles = Profiles { heap: Arc::default() };
        runtime.block_on(profiles.respond(path, query))
    }

    #[test]
    fn paths_are_gos() {
        for (path, is_ours) in [
            ("/debug/pprof", true),
            ("/debug/pprof/", true),
            ("/debug/pprof/heap", true),
            ("/debug/pproff", false),
            ("/debug/vars", false),
            ("/debug", false),
        ] {
            assert_eq!(Profiles::serves(path), is_ours, "{path}");
        }
        assert_eq!(answer("/debug/pprof", "").status, 307);
        for name in ["nothing", "profile/", "block", "mutex", "threadcreate", "trace", "allocs"] {
            let answer = answer(&format!("/debug/pprof/{name}"), "");
            assert_eq!(answer.status, 404, "{name}");
            assert!(answer.headers.contains(&("X-Go-Pprof", "1".to_owned())), "{name}");
        }
        let index = String::from_utf8(answer("/debug/pprof/", "").body).expect("UTF-8");
        for link in ["profile", "heap?debug=1", "goroutine?debug=1", "cmdline"] {
            assert!(index.contains(&format!("href=\"{link}\"")), "{link}");
        }
    }

    #[test]
    fn times_are_bounded() {
        assert_eq!(answer("/debug/pprof/profile", "seconds=301").status, 400);
        assert_eq!(answer("/debug/pprof/heap", "seconds=1").status, 400);
    }

    #[test]
    fn secrets_are_left_out_of_the_command_line() {
        let words =
            ["basalt", "--discovery-user=a:b", "--discovery-password", "c", "--name", "d=e", "-discovery-password=f"];
        let shown = "basalt\0--discovery-user=***\0--discovery-password\0***\0--name\0d=e\0-discovery-password=***";
        assert_eq!(command_line(words.map(str::to_owned).into_iter()), shown);
    }
}
