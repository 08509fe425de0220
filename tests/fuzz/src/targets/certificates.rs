//! Certificates, keys and revocation lists, in PEM and DER; and who is let in by them. The first byte says which.
//!
//! Nobody is let in by a certificate that nobody trusted signed, none that is revoked, and none without an allowed name; a file
//! that cannot be read is refused, and read the same twice.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use arbitrary::Unstructured;
use basalt_server::config::{AllowedNames, certificates, private_key, revoked_serials};
use basalt_server::listen::foreign::{is_allowed, verifier};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa, KeyIdMethod,
    KeyPair, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::forge::{below, overwrite};

/// A time at which all are valid.
const NOW: u64 = 1_800_000_000;

struct Fixture {
    ca: CertificateDer<'static>,
    client: CertificateDer<'static>,
    list: Vec<u8>,
    pem: Vec<u8>,
}

static FIXTURE: LazyLock<Fixture> = LazyLock::new(|| {
    let key = || KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
    let issuer = CertifiedIssuer::self_signed(params, key()).expect("a certificate");
    let hosts = ["m1.example.org", "10.0.0.1", "*.sub.example.org"].map(str::to_owned);
    let mut params = CertificateParams::new(hosts.to_vec()).expect("names");
    params.distinguished_name.push(DnType::CommonName, "m1");
    params.serial_number = Some(SerialNumber::from_slice(&[0, 7, 9]));
    let client_key = key();
    let client = params.signed_by(&client_key, &issuer).expect("a certificate");
    let revoked = RevokedCertParams {
        serial_number: SerialNumber::from_slice(&[5]),
        revocation_time: date_time_ymd(2024, 1, 1),
        reason_code: None,
        invalidity_date: None,
    };
    let list = CertificateRevocationListParams {
        this_update: date_time_ymd(2024, 1, 1),
        next_update: date_time_ymd(2034, 1, 1),
        crl_number: SerialNumber::from_slice(&[1]),
        issuing_distribution_point: None,
        revoked_certs: vec![revoked],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let list = list.signed_by(&issuer).expect("a list").der().to_vec();
    let pem = [client.pem(), issuer.pem(), client_key.serialize_pem()].concat().into_bytes();
    Fixture { ca: issuer.der().clone(), client: client.der().clone(), list, pem }
});

pub(super) fn run(data: &[u8]) {
    let Some((mode, data)) = data.split_first() else { return };
    match mode & 7 {
        0 | 1 => files(data),
        2 => list(data),
        3 => shown(data.to_vec()),
        4 => overwritten(data, &FIXTURE.client, shown),
        5 => overwritten(data, &FIXTURE.list, |bytes| list(&bytes)),
        6 => overwritten(data, &FIXTURE.ca, |bytes| trusted(CertificateDer::from(bytes))),
        _ => names(data),
    }
}

/// One that is sound, with bytes overwritten, and a piece cut out.
fn overwritten(data: &[u8], whole: &[u8], run: fn(Vec<u8>)) {
    let mut feed = Unstructured::new(data);
    let mut bytes = whole.to_vec();
    let times = 1 + below(&mut feed, 4);
    overwrite(&mut feed, &mut bytes, times);
    if below(&mut feed, 4) == 3 {
        let from = below(&mut feed, bytes.len());
        bytes.drain(from..(from + 1 + below(&mut feed, 8)).min(bytes.len()));
    }
    run(bytes);
}

fn files(pem: &[u8]) {
    let chain = certificates(pem);
    assert_eq!(chain, certificates(pem));
    if let Ok(chain) = chain {
        assert!(!chain.is_empty());
        chain.into_iter().take(4).for_each(trusted);
    }
    _ = private_key(pem);
    list(pem);
}

fn list(bytes: &[u8]) {
    let Ok(revoked) = revoked_serials(bytes) else { return };
    let shown = [&FIXTURE.client, &FIXTURE.ca].map(|certificate| revoked.contains(certificate));
    assert_eq!([&FIXTURE.client, &FIXTURE.ca].map(|certificate| revoked.contains(certificate)), shown);
    assert!(revoked.contains(&CertificateDer::from(vec![1, 2, 3])), "what cannot be read counts as revoked");
    let verifier = verifier(vec![FIXTURE.ca.clone()], revoked, AllowedNames::All).expect("a trust anchor");
    let verified = verifier.verify_client_cert(&FIXTURE.client, &[], at(NOW));
    assert_eq!(verified.is_err(), shown[0], "who is revoked, and nobody else, is kept out");
}

fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

fn all_names() -> [AllowedNames; 3] {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    [
        AllowedNames::All,
        AllowedNames::CommonNames(names(&["m1", ""])),
        AllowedNames::Hostnames(names(&["m1.example.org", "10.0.0.1", "a.sub.example.org", "no host"])),
    ]
}

/// As what a client shows.
fn shown(bytes: Vec<u8>) {
    let certificate = CertificateDer::from(bytes);
    for allowed in all_names() {
        let by_name = is_allowed(&allowed, &certificate);
        let trusted = vec![FIXTURE.ca.clone()];
        let verifier = verifier(trusted, Default::default(), allowed).expect("a trust anchor");
        for now in [0, NOW, i64::MAX as u64, u64::MAX] {
            let is_in = verifier.verify_client_cert(&certificate, &[], at(now)).is_ok();
            assert!(!is_in || by_name && is_signed(&certificate), "{certificate:?} is let in");
            _ = verifier.verify_client_cert(&FIXTURE.client, std::slice::from_ref(&certificate), at(now));
        }
    }
}

/// Only the signature's own bytes may differ from one that the CA signed: it covers all the others. They begin behind the
/// signed part, whose length stands in the fourth and fifth byte of its head.
fn is_signed(certificate: &[u8]) -> bool {
    let end = |bytes: &[u8]| 8 + usize::from(u16::from_be_bytes([bytes[6], bytes[7]]));
    let whole: &[u8] = &FIXTURE.client;
    let end = end(whole);
    certificate.get(4..end) == whole.get(4..end) || certificate.get(4..) == FIXTURE.ca.get(4..)
}

/// As what an operator trusts: by itself too, which is a way of its own.
fn trusted(certificate: CertificateDer<'static>) {
    for allowed in all_names() {
        let by_name = is_allowed(&allowed, &certificate);
        let trusted = vec![certificate.clone(), FIXTURE.ca.clone()];
        let Some(verifier) = verifier(trusted, Default::default(), allowed) else { continue };
        for now in [0, NOW, i64::MAX as u64, u64::MAX] {
            let is_in = verifier.verify_client_cert(&certificate, &[], at(now)).is_ok();
            assert!(!is_in || by_name, "{certificate:?} is let in without a name");
        }
        assert_eq!(Arc::strong_count(&verifier), 1);
    }
}

/// Any text as a name that is allowed.
fn names(data: &[u8]) {
    let name = String::from_utf8_lossy(data).into_owned();
    let by_name = is_allowed(&AllowedNames::CommonNames(vec![name.clone()]), &FIXTURE.client);
    assert_eq!(by_name, name == "m1");
    let by_host = is_allowed(&AllowedNames::Hostnames(vec![name.clone()]), &FIXTURE.client);
    assert!(
        !by_host
            || name.ends_with("example.org")
            || name.ends_with("EXAMPLE.ORG")
            || name.ends_with("0.1")
            || name.to_lowercase().contains("example.org"),
        "{name}"
    );
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let with = |mode: u8, bytes: &[u8]| [&[mode], bytes].concat();
    let fixture = &*FIXTURE;
    vec![
        with(0, &fixture.pem),
        with(0, b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"),
        with(2, &fixture.list),
        with(3, &fixture.client),
        with(3, &fixture.ca),
        with(4, &[0, 30, 0, 2, 1, 2, 3]),
        with(5, &[1, 60, 0, 0, 9]),
        with(6, &[3, 12, 1, 5, 1, 1, 1, 1, 1, 1]),
        with(7, b"m1"),
        with(7, b"a.sub.example.org"),
    ]
}
