//! The commit that `--version` shows: what `BASALT_COMMIT` says when it is set; else, in release builds, the one that is
//! checked out. Development builds do not look, so that a commit does not compile the server anew.

use std::path::{Path, PathBuf};
use std::{env, fs};

/// Digits of a commit that are shown.
const DIGITS: usize = 9;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=BASALT_COMMIT");
    let named = env::var("BASALT_COMMIT").ok().filter(|commit| !commit.is_empty());
    let looks = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    if let Some(commit) = named.or_else(|| looks.then(checked_out).flatten()) {
        println!("cargo:rustc-env=BASALT_COMMIT={}", commit.chars().take(DIGITS).collect::<String>());
    }
}

/// The commit of the checkout that this crate lies in, read as git writes it; `None` outside of one.
fn checked_out() -> Option<String> {
    let folder = git_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../.git"))?;
    let head = watched(&folder.join("HEAD"))?;
    let Some(branch) = head.strip_prefix("ref: ") else { return commit(&head) };
    // A worktree's branches lie in the folder of the whole repository.
    let common = watched(&folder.join("commondir")).map_or_else(|| folder.clone(), |common| folder.join(common));
    let loose = watched(&common.join(branch)).and_then(|text| commit(&text));
    loose.or_else(|| {
        let packed = watched(&common.join("packed-refs"))?;
        packed.lines().find_map(|line| commit(line.strip_suffix(branch)?))
    })
}

/// `.git` itself, or where it points to in a worktree.
fn git_folder(git: &Path) -> Option<PathBuf> {
    if git.is_dir() {
        return Some(git.to_owned());
    }
    let text = fs::read_to_string(git).ok()?;
    Some(git.parent()?.join(text.strip_prefix("gitdir: ")?.trim()))
}

/// The text of a file; another one makes this run again.
fn watched(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    println!("cargo:rerun-if-changed={}", path.display());
    Some(text.trim().to_owned())
}

fn commit(text: &str) -> Option<String> {
    let text = text.trim();
    (text.len() >= 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| text.to_owned())
}
