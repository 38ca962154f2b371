"""A CA and what it signs, made by openssl."""

import subprocess

NEW_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]


class Authority:
    def __init__(self, folder, name="ca"):
        self.folder = folder
        self.name = name
        self._openssl("req", "-x509", *NEW_KEY, "-days", "2", "-subj", f"/CN=test {name}",
                      "-keyout", self.key(name), "-out", self.certificate(name))

    def _openssl(self, *arguments):
        subprocess.run(["openssl", *arguments], check=True, capture_output=True)

    def key(self, name):
        return str(self.folder / f"{name}.key")

    def certificate(self, name=None):
        return str(self.folder / f"{name or self.name}.crt")

    def issue(self, name, names="DNS:localhost,IP:127.0.0.1,IP:::1", subject=None):
        """Makes `name.crt` and `name.key`, for servers and clients alike."""
        request = str(self.folder / f"{name}.csr")
        extensions = self.folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName={names}\nextendedKeyUsage=serverAuth,clientAuth\n")
        subject = subject or f"/CN={name}"
        self._openssl("req", *NEW_KEY, "-subj", subject, "-keyout", self.key(name), "-out", request)
        self._openssl("x509", "-req", "-in", request, "-days", "2", "-extfile", str(extensions),
                      "-CA", self.certificate(), "-CAkey", self.key(self.name), "-CAcreateserial",
                      "-out", self.certificate(name))
        return self.certificate(name), self.key(name)

    def revoke(self, *names):
        """The PEM of a list with the certificates revoked, and no other."""
        index, settings = self.folder / "index.txt", self.folder / "ca.cnf"
        index.write_text("")
        settings.write_text(
            f"[ca]\ndefault_ca=own\n[own]\ndatabase={index}\ncertificate={self.certificate()}\n"
            f"private_key={self.key(self.name)}\ndefault_md=sha256\ndefault_crl_days=2\n")
        for name in names:
            self._openssl("ca", "-config", str(settings), "-revoke", self.certificate(name))
        made = self.folder / "revoked.crl"
        self._openssl("ca", "-config", str(settings), "-gencrl", "-out", str(made))
        return made.read_text()
