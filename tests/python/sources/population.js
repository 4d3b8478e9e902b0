// The population database by node-soap, over mTLS by itself: node population.js MODULES WSDL CERTIFICATE KEY CA
const [modules, wsdl, certificate, key, ca] = process.argv.slice(2)
const fs = require('fs')
const https = require('https')
const soap = require(`${modules}/soap`)

const fault = (code, text) => { throw { Fault: { faultcode: code, faultstring: text, statusCode: 500 } } }
const member = n => ({ SoDinhDanh: `02208545530${n}`, HoVaTen: { Ten: `Trần ${n}` }, QuanHe: `CH0${n}` })
const operations = {
  verify: asked => ({ KetQuaXacThuc: { TonTai: String(asked.HoVaTen === 'NGUYENVANA') } }),
  citizen: asked => {
    switch (asked.SoDinhDanh.slice(-1)) {
      case '9': return {}
      case '8': return fault('soap:Client.Authentication', 'Sai tài khoản')
      case '7': throw new Error("a bug of the source's")
    }
    const birth = { Nam: 1985, NgayThangNam: asked.NgayThangNamSinh.NgayThangNam }
    return { CongDan: { SoDinhDanh: asked.SoDinhDanh, HoVaTen: { Ho: 'Nguyễn', Ten: 'A' }, NgayThangNamSinh: birth } }
  },
  household: () => ({ HoGiaDinh: { SoSoHoKhau: '220001000', DanhSachThanhVien: { ThanhVien: [1, 2, 3].map(member) } } }),
}

const secrets = { cert: fs.readFileSync(certificate), key: fs.readFileSync(key), ca: fs.readFileSync(ca) }
const server = https.createServer({ ...secrets, requestCert: true, rejectUnauthorized: true }, (_, answer) => answer.end('up'))
server.listen(0, '127.0.0.1', () => {
  soap.listen(server, '/', { Population: { Application: operations } }, fs.readFileSync(wsdl, 'utf8'),
    () => console.log(server.address().port))
})
