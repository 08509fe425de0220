//! The document of the log says what an entry's data is.

use prost::Message;
use prost_types::FileDescriptorSet;

#[test]
fn the_document_names_every_field_of_an_entry() {
    let document = include_str!("../../docs/disk-format-wal.md");
    let described = FileDescriptorSet::decode(basalt_proto::FILE_DESCRIPTOR_SET).expect("our own descriptors");
    let messages = described.file.iter().filter(|file| file.package() == "basalt.log.v1").flat_map(|f| &f.message_type);
    let entry = messages.clone().find(|message| message.name() == "LogEntry").expect("there is such a message");
    for field in &entry.field {
        let line = format!("| {} | `{}` |", field.number(), field.name());
        assert!(document.contains(&line), "the document lacks: {line}");
    }
    assert_eq!(entry.field.len(), 6);
}
