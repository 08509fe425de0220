//! A certificate of our own making, for who asked for TLS and has none (`--auto-tls`, `--peer-auto-tls`).
//!
//! Names, fields and files are etcd's (`client/pkg/transport/listener.go`, `SelfCert`), so that a directory can go either way:
//! a P-521 key, an organization and no common name, CA:TRUE, a purpose of servers alone. It is made once and never renewed.

use std::io;

use aws_lc_rs::encoding::{AsDer, EcPrivateKeyRfc5915Der};
use aws_lc_rs::signature::{ECDSA_P521_SHA512_ASN1_SIGNING, EcdsaKeyPair};
use basalt_storage::disk::{Disk, FileId, Io, IoOutput, RealDisk};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use rand::TryRngCore;
use rand::rngs::OsRng;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber,
};
use rustls_pki_types::PrivatePkcs8KeyDer;
use time::OffsetDateTime;
use tracing::{info, warn};

use super::error::ListenError;
use crate::config::GeneratedCertificate;

const ORGANIZATION: &str = "etcd";
/// 128 bits, as etcd takes them.
const SERIAL_BYTES: usize = 16;
/// Characters of a line of PEM (RFC 7468).
const PEM_LINE: usize = 64;
/// Ending of a file that is not whole yet.
const UNFINISHED: &str = ".new";

/// Makes certificate and key, unless both are there already, in whatever state: whose they are and how long they last is not
/// looked at, as in etcd.
///
/// # Errors
/// [`ListenError::Generate`]; what was there before is not lost.
pub fn ensure(wanted: &GeneratedCertificate) -> Result<(), ListenError> {
    let failed = |cause| ListenError::Generate { directory: wanted.directory.clone(), cause };
    if wanted.cert_file().exists() && wanted.key_file().exists() {
        return Ok(());
    }
    let now = OffsetDateTime::now_utc();
    let made = make(wanted, now).map_err(failed)?;
    write(wanted, &made).map_err(failed)?;
    warn!(
        cert_file = %wanted.cert_file().display(),
        key_file = %wanted.key_file().display(),
        not_after = %(now + wanted.validity),
        "automatically generate certificates"
    );
    Ok(())
}

/// Both as PEM.
struct Made {
    cert: String,
    key: String,
}

fn make(wanted: &GeneratedCertificate, now: OffsetDateTime) -> io::Result<Made> {
    let key = EcdsaKeyPair::generate(&ECDSA_P521_SHA512_ASN1_SIGNING).map_err(io::Error::other)?;
    let sec1: EcPrivateKeyRfc5915Der<'_> = key.private_key().as_der().map_err(io::Error::other)?;
    let pkcs8 = key.to_pkcs8v1().map_err(io::Error::other)?;
    let signer = KeyPair::from_pkcs8_der_and_sign_algo(
        &PrivatePkcs8KeyDer::from(pkcs8.as_ref()),
        &rcgen::PKCS_ECDSA_P521_SHA512,
    );
    let signer = signer.map_err(io::Error::other)?;
    let mut serial = [0; SERIAL_BYTES];
    OsRng.try_fill_bytes(&mut serial).map_err(io::Error::other)?;
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, ORGANIZATION);
    params.not_before = now;
    params.not_after = now + wanted.validity;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::KeyEncipherment, KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::CrlSign];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    for host in &wanted.hosts {
        params.subject_alt_names.push(match host.parse() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(host.as_str().try_into().map_err(io::Error::other)?),
        });
    }
    let cert = params.self_signed(&signer).map_err(io::Error::other)?;
    Ok(Made { cert: pem("CERTIFICATE", cert.der()), key: pem("EC PRIVATE KEY", sec1.as_ref()) })
}

fn pem(kind: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let mut text = format!("-----BEGIN {kind}-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, further) = rest.split_at(rest.len().min(PEM_LINE));
        text += line;
        text.push('\n');
        rest = further;
    }
    text + &format!("-----END {kind}-----\n")
}

/// Whole files or none, after a crash too, and never a certificate beside another's key. The lock keeps out a second process
/// that was given the same directory.
fn write(wanted: &GeneratedCertificate, made: &Made) -> io::Result<()> {
    let disk = RealDisk::open(&wanted.directory)?;
    let _lock = disk.lock().map_err(io::Error::other)?;
    let sync_names = || disk.perform(Io::SyncDir { directory: String::new() });
    match disk.perform(Io::Remove { name: GeneratedCertificate::CERT.to_owned() }) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => sync_names()?,
    };
    for (name, text) in [(GeneratedCertificate::KEY, &made.key), (GeneratedCertificate::CERT, &made.cert)] {
        let unfinished = format!("{name}{UNFINISHED}");
        let file = open(&disk, &unfinished)?;
        disk.perform(Io::Truncate { file, length: 0 })?;
        disk.perform(Io::Write { file, offset: 0, bytes: Bytes::copy_from_slice(text.as_bytes()) })?;
        disk.perform(Io::Sync { file })?;
        disk.perform(Io::Close { file })?;
        disk.perform(Io::Rename { from: unfinished, to: name.to_owned() })?;
        sync_names()?;
        info!(path = %wanted.directory.join(name).display(), "created file");
    }
    Ok(())
}

fn open(disk: &dyn Disk, name: &str) -> io::Result<FileId> {
    match disk.perform(Io::Open { name: name.to_owned(), create: true })? {
        IoOutput::Opened { file, .. } => Ok(file),
        other => unreachable!("an open answers Opened, not {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

    use super::*;
    use crate::config;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn wanted(folder: &tempfile::TempDir) -> GeneratedCertificate {
        let hosts = ["127.0.0.1", "localhost", "::1"].map(str::to_owned).to_vec();
        GeneratedCertificate { directory: folder.path().join("fixtures/client"), hosts, validity: 2 * 365 * DAY }
    }

    #[test]
    fn fields_are_etcds() {
        let folder = tempfile::tempdir().expect("a folder");
        let made = make(&wanted(&folder), OffsetDateTime::now_utc()).expect("made");
        let der = config::certificates(made.cert.as_bytes()).expect("a certificate").remove(0);
        let (_, cert) = X509Certificate::from_der(&der).expect("X.509");
        assert_eq!(cert.subject().to_string(), "O=etcd");
        assert!(cert.is_ca());
        assert_eq!(cert.basic_constraints().expect("read").expect("there").value.path_len_constraint, None);
        let usage = cert.key_usage().expect("read").expect("there").value;
        assert!(usage.key_encipherment() && usage.digital_signature() && usage.crl_sign() && !usage.key_cert_sign());
        let purpose = cert.extended_key_usage().expect("read").expect("there").value;
        assert!(purpose.server_auth && !purpose.client_auth && !purpose.any);
        let life = cert.validity().not_after.timestamp() - cert.validity().not_before.timestamp();
        assert_eq!(life, 2 * 365 * 24 * 60 * 60);
        let names = cert.subject_alternative_name().expect("read").expect("there").value;
        let names: Vec<_> = names.general_names.iter().collect();
        let ipv6 = std::net::Ipv6Addr::LOCALHOST.octets();
        let expected =
            [GeneralName::IPAddress(&[127, 0, 0, 1]), GeneralName::DNSName("localhost"), GeneralName::IPAddress(&ipv6)];
        assert_eq!(names, expected.iter().collect::<Vec<_>>());
        assert!(made.key.starts_with("-----BEGIN EC PRIVATE KEY-----\n"), "SEC1, as etcd's");
        assert!(made.key.lines().all(|line| line.len() <= PEM_LINE));
        config::private_key(made.key.as_bytes()).expect("a key");
    }

    #[test]
    fn what_is_there_stays_and_a_half_is_made_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let wanted = wanted(&folder);
        let contents = || {
            let read = |path| fs::read_to_string(path).expect("text");
            (read(wanted.cert_file()), read(wanted.key_file()))
        };
        ensure(&wanted).expect("made");
        let first = contents();
        ensure(&wanted).expect("there");
        assert_eq!(contents(), first);
        for lost in [wanted.key_file(), wanted.cert_file()] {
            let before = contents();
            fs::remove_file(lost).expect("removed");
            ensure(&wanted).expect("made again");
            let after = contents();
            assert!(after.0 != before.0 && after.1 != before.1, "certificate and key are of one making");
        }
        let mut left: Vec<_> = fs::read_dir(&wanted.directory)
            .expect("listed")
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("text"))
            .collect();
        left.sort();
        assert_eq!(left, ["cert.pem", "key.pem", "lock"]);
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(wanted.key_file()).expect("there").permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_place_that_cannot_be_written_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("fixtures"), "a file").expect("written");
        let error = ensure(&wanted(&folder)).expect_err("no directory").to_string();
        assert!(error.contains("fixtures/client"), "{error}");
    }

    #[test]
    fn names_that_no_certificate_can_hold_are_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let bad = GeneratedCertificate { hosts: vec!["gr\u{fc}n".to_owned()], ..wanted(&folder) };
        assert!(ensure(&bad).is_err());
        assert!(!bad.directory.exists());
    }
}
