//! The common name of a certificate, as Go has it.

use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The last one of its subject (crypto/x509/pkix `FillFromRDNSequence`). None if that cannot be read: whom it names is not known
/// then, and an earlier one is somebody else.
pub(super) fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let name = certificate.subject().iter_common_name().last()?.as_str().ok()?;
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use rcgen::string::BmpString;
    use rcgen::{CertificateParams, DnType, DnValue, KeyPair};

    use super::*;

    #[test]
    fn of_several_names_the_last_one_counts() {
        // The same type by its number, of which a certificate of rcgen's may have one more.
        let again = || DnType::CustomDnType(vec![2, 5, 4, 3]);
        let bmp = || DnValue::BmpString(BmpString::try_from("wide").expect("text"));
        let of = |names: Vec<(DnType, DnValue)>| {
            let mut params = CertificateParams::new(Vec::new()).expect("parameters");
            params.distinguished_name = rcgen::DistinguishedName::new();
            names.into_iter().for_each(|(kind, name)| params.distinguished_name.push(kind, name));
            let key = KeyPair::generate().expect("a key");
            common_name(params.self_signed(&key).expect("a certificate").der())
        };
        assert_eq!(of(vec![]), None);
        assert_eq!(of(vec![(DnType::CommonName, "ann".into())]), Some("ann".to_owned()));
        for (first, last) in [("ann", "root"), ("root", "ann")] {
            let names = vec![(DnType::CommonName, first.into()), (again(), last.into())];
            assert_eq!(of(names), Some(last.to_owned()));
            let names = vec![(again(), first.into()), (DnType::CommonName, last.into())];
            assert_eq!(of(names), Some(last.to_owned()));
        }
        assert_eq!(of(vec![(DnType::CommonName, "ann".into()), (again(), bmp())]), None);
    }
}
