//! Keys of every kind, and tokens that are none.

use std::path::PathBuf;

use rcgen::{
    KeyPair as Pair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_ED25519,
    PKCS_RSA_SHA256,
};
use tempfile::TempDir;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn pair(method: Method) -> Pair {
    let algorithm = match method {
        Method::ES256 => &PKCS_ECDSA_P256_SHA256,
        Method::ES384 => &PKCS_ECDSA_P384_SHA384,
        Method::ES512 => &PKCS_ECDSA_P521_SHA512,
        Method::EdDSA => &PKCS_ED25519,
        _ => &PKCS_RSA_SHA256,
    };
    Pair::generate_for(algorithm).expect("a key")
}

fn file(directory: &TempDir, name: &str, contents: &str) -> Option<PathBuf> {
    let path = directory.path().join(name);
    std::fs::write(&path, contents).expect("a file");
    Some(path)
}

fn options(method: Method, private_key: Option<PathBuf>, public_key: Option<PathBuf>) -> JwtOptions {
    JwtOptions { method, private_key, public_key, life: MINUTE }
}

fn keys_of(directory: &TempDir, method: Method) -> (Option<PathBuf>, Option<PathBuf>) {
    if method.is_hmac() {
        return (file(directory, "key", "a secret of some length"), None);
    }
    let pair = pair(method);
    (file(directory, "private", &pair.serialize_pem()), file(directory, "public", &pair.public_key_pem()))
}

#[test]
fn every_method_signs_and_verifies_its_own() {
    let directory = TempDir::new().expect("a directory");
    for method in Method::ALL {
        assert_eq!(Method::of_name(&format!("{method:?}")), Some(method));
        let (private, public) = keys_of(&directory, method);
        let both = JwtKeys::read(&options(method, private.clone(), public.clone())).expect("both keys");
        let token = both.sign("ann", 7).expect("a token");
        let user_of = |keys: &JwtKeys| keys.verify(&token).map(|user| (user.name, user.revision, user.ends.is_some()));
        let ann = Ok(("ann".to_owned(), 7, true));
        assert_eq!(user_of(&both), ann, "{method:?}");
        let alone = JwtKeys::read(&options(method, private, None)).expect("a private key");
        assert_eq!(user_of(&alone), ann, "{method:?}");
        if !method.is_hmac() {
            let verifying = JwtKeys::read(&options(method, None, public)).expect("a public key");
            assert_eq!(user_of(&verifying), ann, "{method:?}");
            assert_eq!(verifying.sign("ann", 7), Err(JwtError::VerifyOnly), "{method:?}");
        }
        // Of another key.
        let (other, _) =
            if method.is_hmac() { (file(&directory, "o", "another"), None) } else { keys_of(&directory, method) };
        let other = JwtKeys::read(&options(method, other, None)).expect("another key");
        assert_eq!(other.verify(&token), Err(JwtError::Signature), "{method:?}");
    }
}

#[test]
fn what_is_no_token_is_refused() {
    let directory = TempDir::new().expect("a directory");
    let (private, _) = keys_of(&directory, Method::HS256);
    let keys = JwtKeys::read(&options(Method::HS256, private.clone(), None)).expect("a key");
    let token = keys.sign("ann", 7).expect("a token");
    let [header, claims, signature] = token.split('.').collect::<Vec<_>>()[..] else { panic!("{token}") };
    let encode = |json: &str| URL_SAFE_NO_PAD.encode(json);
    let signed = |header: &str, claims: &str| {
        let signed = format!("{}.{}", encode(header), encode(claims));
        let signature = sign(keys.signing.as_ref().expect("it signs"), signed.as_bytes()).expect("signed");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    };
    let good = r#"{"alg":"HS256"}"#;
    for (token, error) in [
        (String::new(), JwtError::Malformed),
        ("a".to_owned(), JwtError::Malformed),
        (format!("{header}.{claims}"), JwtError::Malformed),
        (format!("{header}.{claims}."), JwtError::Signature),
        (format!("{header}.{claims}.{signature}?"), JwtError::Malformed),
        (format!("{header}.{}.{signature}", encode(r#"{"username":"root","revision":7}"#)), JwtError::Signature),
        (format!("{}.{claims}.", encode(r#"{"alg":"none"}"#)), JwtError::Method),
        (format!("{}.{claims}.{signature}", encode(r#"{"alg":"HS384"}"#)), JwtError::Method),
        (signed(good, r#"{"username":"ann","revision":7,"exp":1}"#), JwtError::Time),
        (signed(good, r#"{"username":"ann","revision":7,"nbf":9e12}"#), JwtError::Time),
        (signed(good, r#"{"username":"ann"}"#), JwtError::Malformed),
        (signed(good, r#"{"revision":7}"#), JwtError::Malformed),
        (signed(good, r#"{"username":7,"revision":7}"#), JwtError::Malformed),
        (signed(good, r#"{"username":"ann","revision":-1}"#), JwtError::Malformed),
        (signed(good, "[]"), JwtError::Malformed),
        (signed("{}", "{}"), JwtError::Malformed),
    ] {
        assert_eq!(keys.verify(&token), Err(error), "{token}");
    }
    // As etcd: a token without an end is good.
    assert!(keys.verify(&signed(good, r#"{"username":"ann","revision":7}"#)).is_ok());
    let ended = JwtKeys { life: Duration::ZERO, ..keys };
    assert_eq!(ended.verify(&ended.sign("ann", 7).expect("a token")), Err(JwtError::Time));
}

#[test]
fn keys_that_do_not_fit_are_told() {
    let directory = TempDir::new().expect("a directory");
    let (private, public) = keys_of(&directory, Method::ES256);
    let refused = |method, private: &Option<PathBuf>, public: &Option<PathBuf>| {
        JwtKeys::read(&options(method, private.clone(), public.clone())).expect_err("refused").to_string()
    };
    assert!(refused(Method::RS256, &None, &None).contains("names no key for RS256"));
    assert!(refused(Method::HS256, &None, &public).contains("names no key for HS256"));
    assert!(refused(Method::RS256, &private, &None).contains("no RSA key"));
    assert!(refused(Method::ES384, &private, &None).contains("no key of that curve"));
    assert!(refused(Method::EdDSA, &private, &None).contains("no Ed25519 key"));
    assert!(refused(Method::ES256, &public, &None).contains("no private key in PEM"));
    assert!(refused(Method::ES384, &None, &public).contains("no key of that kind"));
    assert!(refused(Method::ES256, &None, &private).contains("no public key in PEM"));
    assert!(refused(Method::ES256, &Some(PathBuf::from("/nowhere")), &None).contains("cannot read"));
    assert!(refused(Method::HS256, &file(&directory, "empty", ""), &None).contains("it is empty"));
    let other = file(&directory, "other", &pair(Method::ES256).public_key_pem());
    assert!(refused(Method::ES256, &private, &other).contains("do not belong together"));
}
