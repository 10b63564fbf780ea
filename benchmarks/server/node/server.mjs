// The comparator: what people would write with Node and `ws`. It answers every packet of a jsonPTS
// message with its confirmation. Where it stores, it stores what ptslink must store before it may
// confirm: the raw text, once per natural key, in SQLite with WAL and synchronous=FULL.
//
//   node server.mjs --port N [--store FILE --commit message|turn]
//
//   no --store        confirms without storing
//   --commit message  one transaction a message, the confirmation after it
//   --commit turn     what one turn of the event loop brought in is committed together
//                     (setImmediate), then all its confirmations leave
//
// Handshakes leave no record, connections have no keepalive timer: the least a server can do.

import { createRequire } from 'node:module';
import { parseArgs } from 'node:util';
import { createHash } from 'node:crypto';

const { values: options } = parseArgs({
  options: {
    port: { type: 'string' },
    modules: { type: 'string' },
    store: { type: 'string' },
    commit: { type: 'string', default: 'message' },
  },
});
const require = createRequire(options.modules + '/');
const { WebSocketServer } = require('ws');

function confirmation(packets) {
  return JSON.stringify({
    Protocol: 'jsonPTS',
    Packets: packets.map(({ Id, Type }) => ({ Id, Type, Message: 'OK' })),
  });
}

// What makes a record one and the same when it is sent again.
function naturalKey(type, data) {
  switch (type) {
    case 'UploadPumpTransaction':
      return `${data.Pump}|${data.Transaction}|${data.DateTimeStart}|${data.DateTime}|${data.Volume}|${data.TotalVolume}`;
    case 'UploadTankMeasurement':
      return `${data.Tank}|${data.DateTime}|${data.ProductHeight}|${data.ProductVolume}|${data.WaterHeight}`;
    default:
      return createHash('sha1').update(JSON.stringify(data ?? null)).digest('base64');
  }
}

function openStore(file) {
  const Database = require('better-sqlite3');
  const database = new Database(file);
  database.pragma('journal_mode = WAL');
  database.pragma('synchronous = FULL');
  database.exec(
    `CREATE TABLE controller (number INTEGER PRIMARY KEY, pts_id TEXT NOT NULL UNIQUE);
     CREATE TABLE message (number INTEGER PRIMARY KEY, received REAL NOT NULL, controller INTEGER NOT NULL,
       type TEXT NOT NULL, natural_key TEXT NOT NULL, body TEXT NOT NULL);
     CREATE UNIQUE INDEX once ON message (controller, type, natural_key);`,
  );
  const add = database.prepare(
    'INSERT OR IGNORE INTO message (received, controller, type, natural_key, body) VALUES (?, ?, ?, ?, ?)',
  );
  const find = database.prepare('SELECT number FROM controller WHERE pts_id = ?').pluck();
  const admit = database.prepare('INSERT INTO controller (pts_id) VALUES (?)');
  const numbers = new Map();
  return {
    controller(ptsId) {
      let number = numbers.get(ptsId);
      if (number === undefined) {
        number = find.get(ptsId) ?? admit.run(ptsId).lastInsertRowid;
        numbers.set(ptsId, number);
      }
      return number;
    },
    commit: database.transaction((batch) => {
      for (const { controller, text, packets } of batch) {
        for (const { Type, Data } of packets) {
          add.run(Date.now() / 1000, controller, Type, naturalKey(Type, Data), text);
        }
      }
    }),
  };
}

const store = options.store ? openStore(options.store) : null;
let batch = [];

function flush() {
  const taken = batch;
  batch = [];
  store.commit(taken);
  for (const { socket, packets } of taken) socket.send(confirmation(packets));
}

const server = new WebSocketServer({
  host: '127.0.0.1',
  port: Number(options.port),
  path: '/ptsWebSocket',
  maxPayload: 1 << 20,
  perMessageDeflate: false,
  backlog: 4096,
});
server.on('connection', (socket, request) => {
  const controller = store?.controller(request.headers['x-pts-id'] ?? '');
  socket.on('error', () => {});
  socket.on('message', (data) => {
    const text = data.toString();
    const { Packets: packets } = JSON.parse(text);
    if (store === null) {
      socket.send(confirmation(packets));
    } else if (options.commit === 'message') {
      store.commit([{ controller, text, packets }]);
      socket.send(confirmation(packets));
    } else {
      if (batch.length === 0) setImmediate(flush);
      batch.push({ socket, controller, text, packets });
    }
  });
});
server.on('listening', () => console.log('listening'));
// A fair memory figure: garbage is collected before it is taken (node --expose-gc).
process.on('SIGUSR2', () => globalThis.gc?.());
process.on('SIGTERM', () => process.exit(0));
