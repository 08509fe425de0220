//! Compiles the `.proto` files of this folder with protox: building needs no protoc.

use std::collections::BTreeSet;
use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

use protox::prost::Message;

/// Imports bring in the rest.
const FILES: &[&str] = &[
    "etcd/etcdserverpb/auth.proto",
    "etcd/etcdserverpb/cluster.proto",
    "etcd/etcdserverpb/kv.proto",
    "etcd/etcdserverpb/lease.proto",
    "etcd/etcdserverpb/maintenance.proto",
    "etcd/etcdserverpb/watch.proto",
    "etcd/leasepb/lease.proto",
    "etcd/membershippb/membership.proto",
    "etcd/v3electionpb/v3election.proto",
    "etcd/v3lockpb/v3lock.proto",
    "grpc/health/v1/health.proto",
    "basalt/effects/v1/effects.proto",
    "basalt/log/v1/log.proto",
    "basalt/members/v1/members.proto",
    "basalt/node/v1/node.proto",
    "basalt/peer/v1/peer.proto",
    "basalt/snapshot/v1/snapshot.proto",
    "otlp/trace.proto",
];

/// Calls of these wait as long as their clients like. What they are asked is copied out of the message that it came in, whose
/// buffer may be much larger; of all others it is a slice of that.
const COPIED_PACKAGES: &[&str] = &["v3electionpb", "v3lockpb"];

fn main() -> Result<(), Box<dyn Error>> {
    for folder in ["etcd", "grpc", "basalt", "otlp"] {
        println!("cargo:rerun-if-changed={folder}");
    }
    let mut described = protox::compile(FILES, ["."])?;

    let mut published = described.clone();
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("commented.bin"), published.encode_to_vec())?;
    for file in &mut published.file {
        file.source_code_info = None;
    }
    fs::write(out.join("descriptors.bin"), published.encode_to_vec())?;

    // Rust names only: `peerURLs` would become `peer_ur_ls`. The published descriptors keep etcd's spelling.
    let messages = described.file.iter_mut().flat_map(|file| &mut file.message_type);
    for field in messages.flat_map(|message| &mut message.field) {
        field.name = Some(field.name().replace("URLs", "_urls"));
    }
    let packages: BTreeSet<String> = described.file.iter().map(|file| file.package().to_owned()).collect();
    let sliced = packages.iter().filter(|package| !COPIED_PACKAGES.contains(&package.as_str()));
    let builder = tonic_prost_build::configure().build_server(false);
    sliced.fold(builder, |builder, package| builder.bytes(format!(".{package}"))).compile_fds(described)?;
    Ok(())
}
