//! Any bytes from outside.

use proptest::prelude::*;

use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn arguments_never_panic(
        args in prop::collection::vec("(--?[a-z-]{0,12}(=[ -~]{0,12})?|[ -~]{0,12})", 0..4),
        index in 0..FLAGS.len(),
        value in "[ -~]{0,16}",
    ) {
        let mut args = args;
        args.insert(0, format!("--{}={value}", FLAGS[index].name));
        let _ = parse(&args, &[], &read_file, &|| Ok(HOST));
    }

    #[test]
    fn config_files_never_panic(content in "([a-z-]{1,12}: ?[ -~]{0,8}\n){0,4}") {
        let _ = config_file::read("a.yml", content.as_bytes());
    }
}
