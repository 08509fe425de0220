//! Our `.proto` files are our own words; names and numbers must be etcd's to the last one (etcd-contract, section 2).

use std::collections::BTreeSet;

use basalt_proto::FILE_DESCRIPTOR_SET;
use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorSet, ServiceDescriptorProto};

/// Rendered by [`Listing`] from the descriptors that protoc makes of etcd's own files at v3.7.1; the release branch has
/// not changed them since. `leasepb` is cut to the one message that snapshots hold.
const ETCD: &str = include_str!("etcd-3.7.txt");
/// What logs and backups in the field are written by: lines are added, never changed.
const OURS: &str = include_str!("basalt-v1.txt");

/// One line for each field, enum value and RPC; order and file of a declaration do not matter.
#[derive(Default)]
struct Listing(BTreeSet<String>);

impl Listing {
    fn of(packages: impl Fn(&str) -> bool) -> Self {
        let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("our own descriptors");
        let mut listing = Self::default();
        for file in set.file.iter().filter(|file| packages(file.package())) {
            file.message_type.iter().for_each(|message| listing.message(file.package(), message));
            file.enum_type.iter().for_each(|values| listing.values(file.package(), values));
            file.service.iter().for_each(|service| listing.service(file.package(), service));
        }
        listing
    }

    fn message(&mut self, scope: &str, message: &DescriptorProto) {
        let name = format!("{scope}.{}", message.name());
        self.0.insert(format!("message {name}"));
        for field in &message.field {
            let kind = match field.r#type() {
                Type::Message | Type::Enum => field.type_name().trim_start_matches('.').to_owned(),
                scalar => scalar.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
            };
            let repeated = if field.label() == Label::Repeated { "repeated " } else { "" };
            let oneof = field.oneof_index.map(|index| format!(" in {}", message.oneof_decl[index as usize].name()));
            let (label, number, oneof) = (field.name(), field.number(), oneof.unwrap_or_default());
            self.0.insert(format!("field {name}.{label} = {number} {repeated}{kind}{oneof}"));
        }
        message.nested_type.iter().for_each(|nested| self.message(&name, nested));
        message.enum_type.iter().for_each(|values| self.values(&name, values));
    }

    fn values(&mut self, scope: &str, values: &EnumDescriptorProto) {
        for value in &values.value {
            self.0.insert(format!("value {scope}.{}.{} = {}", values.name(), value.name(), value.number()));
        }
    }

    fn service(&mut self, package: &str, service: &ServiceDescriptorProto) {
        for rpc in &service.method {
            let stream = |yes: bool| if yes { "stream " } else { "" };
            self.0.insert(format!(
                "rpc /{package}.{}/{} {}{} -> {}{}",
                service.name(),
                rpc.name(),
                stream(rpc.client_streaming()),
                rpc.input_type().trim_start_matches('.'),
                stream(rpc.server_streaming()),
                rpc.output_type().trim_start_matches('.'),
            ));
        }
    }

    fn starting_with(&self, prefix: &str) -> usize {
        self.0.iter().filter(|line| line.starts_with(prefix)).count()
    }
}

fn assert_equal(ours: &Listing, reviewed: &str) {
    let reviewed: BTreeSet<String> = reviewed.lines().map(str::to_owned).collect();
    let missing: Vec<_> = reviewed.difference(&ours.0).collect();
    let extra: Vec<_> = ours.0.difference(&reviewed).collect();
    assert!(missing.is_empty() && extra.is_empty(), "missing: {missing:#?}\nnot expected: {extra:#?}");
}

#[test]
fn names_and_numbers_are_those_of_etcd() {
    let is_etcds =
        |package: &str| !["grpc.health.", "basalt.", "opentelemetry."].iter().any(|own| package.starts_with(own));
    assert_equal(&Listing::of(is_etcds), ETCD);
}

#[test]
fn own_numbers_are_never_reused() {
    assert_equal(&Listing::of(|package| package.starts_with("basalt.")), OURS);
}

#[test]
fn every_rpc_of_etcd_is_there() {
    let all = Listing::of(|_| true);
    assert_eq!(all.starting_with("rpc /etcdserverpb."), 42);
    assert_eq!(all.starting_with("rpc /v3lockpb."), 2);
    assert_eq!(all.starting_with("rpc /v3electionpb."), 5);
    assert_eq!(all.starting_with("rpc /grpc.health.v1.Health/"), 3);
    assert_eq!(all.starting_with("rpc /basalt.peer.v1.Peer/"), 9);
    assert_eq!(all.starting_with("rpc /basalt.node.v1.Node/"), 1);
    assert_eq!(all.starting_with("rpc /opentelemetry.proto.collector.trace.v1.TraceService/"), 1);
    assert_eq!(all.starting_with("rpc "), 63);
}
