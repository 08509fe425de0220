//! The URLs that nobody set.

use super::*;

#[test]
fn the_machines_address_takes_the_place_of_localhost_beside_listeners_on_all_addresses() {
    let client = |line: &str| texts(&run(line).0.client.advertise_urls).join(",");
    let all = "--listen-client-urls http://0.0.0.0:1 --advertise-client-urls";
    assert_eq!(client(&format!("{all} http://localhost:2379")), "http://10.9.8.7:1");
    let another_first = "--listen-client-urls https://0.0.0.0:1,http://[::1]:2 --cert-file cert.pem --key-file key.pem";
    assert_eq!(client(&format!("{another_first} --advertise-client-urls=")), "http://localhost:2379");
    for kept in ["http://127.0.0.1:2379", "http://localhost:1", "http://a:1,http://localhost:2379"] {
        assert_eq!(client(&format!("{all} {kept}")), kept);
    }
    for one_address in ["http://127.0.0.1:1", "http://[::]:1", "unix://s"] {
        let line = format!("--listen-client-urls {one_address} --advertise-client-urls http://localhost:2379");
        assert_eq!(client(&line), "http://localhost:2379", "{one_address}");
        assert_eq!(run(&line).0.default_host, None);
    }

    let (config, warnings) = run("--name a --listen-peer-urls http://0.0.0.0:3");
    assert_eq!((config.default_host, warnings), (Some(HOST), Vec::new()));
    assert_eq!(texts(&config.peer.advertise_urls), ["http://10.9.8.7:3"]);
    assert_eq!(cluster_text(&config.peer.initial_cluster), "a=http://10.9.8.7:3");
    assert!(config.bootstrap().is_ok());
    // As in etcd, the member of no name keeps the default's cluster, in which it stands elsewhere than it advertises: its start
    // compares these, and ends.
    let nameless = run("--listen-peer-urls http://0.0.0.0:3").0;
    assert_eq!(texts(&nameless.peer.advertise_urls), ["http://10.9.8.7:3"]);
    assert_eq!(texts(&nameless.bootstrap().expect("it is listed").own_urls), ["http://localhost:2380"]);
}

#[test]
fn without_a_default_route_localhost_stays() {
    let args = ["--name=a", "--listen-peer-urls=http://0.0.0.0:3"].map(str::to_owned);
    let nowhere = || -> io::Result<IpAddr> { Err(io::Error::other("could not find default route")) };
    let Ok(Parsed::Run(config, warnings)) = parse(&args, &[], &read_file, &nowhere) else { panic!("valid") };
    assert_eq!(texts(&config.peer.advertise_urls), ["http://localhost:2380"]);
    assert_eq!(config.default_host, None);
    assert_eq!(warnings, ["failed to detect default host, localhost is advertised: could not find default route"]);
    let v6 = || -> io::Result<IpAddr> { Ok("2001:db8::5".parse().expect("an address")) };
    let Ok(Parsed::Run(config, _)) = parse(&args, &[], &read_file, &v6) else { panic!("valid") };
    assert_eq!(texts(&config.peer.advertise_urls), ["http://[2001:db8::5]:3"]);
}
